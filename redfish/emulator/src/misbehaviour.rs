//! What goes wrong on the wire. What goes wrong with the power itself is the machine's ([`machine::BmcFault`]).

/// A misbehaviour, switched on and off at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Misbehaviour {
    /// Both: every answer comes thirty seconds late.
    ThirtySecondsLate,
    /// Both: a power command is done and its answer never sent.
    PowerReplyLost,
    /// Both: the chassis repeats what the system says instead of the truth (the second of two lies).
    ChassisAgrees,
    /// Both: after the next power command another machine's identity is shown.
    IdentityChanges,
    /// Redfish: `PowerState` is null.
    PowerStateNull,
    /// Redfish: `PowerState` is missing.
    PowerStateMissing,
    /// Redfish: `PowerState` is a number.
    PowerStateMistyped,
    /// Redfish: `PowerState` is written `off` or `on`.
    PowerStateLowerCase,
    /// Redfish: `PowerState` says `PoweringOff` for ever once it should say `Off`.
    PowerStateHangs,
    /// Redfish: it answers 202 to power commands, with a task that never ends.
    EndlessTask,
    /// Redfish: it answers 202 to power commands, with a task that ends as an exception.
    FailingTask,
    /// Redfish: every answer is a redirection to another place.
    Redirects,
    /// Redfish: actions and members point to another host.
    ForeignLinks,
    /// Redfish: an answer of 16 MiB.
    HugeBody,
    /// Redfish: an answer that nests ten thousand levels deep.
    DeepBody,
    /// Redfish: an answer that is cut in its middle, with a length that says otherwise.
    CutBody,
    /// Redfish: an answer that never ends.
    EndlessBody,
    /// Redfish: a byte each second.
    Drip,
    /// Redfish: half an object, as if it were whole.
    HalfJson,
    /// Redfish: HTML with status 200.
    Html,
    /// Redfish: the connection is reset instead of an answer.
    Reset,
    /// Redfish: bytes that are no TLS.
    NoTls,
    /// Redfish: another certificate than before.
    OtherCertificate,
    /// Redfish: 401 to everything but the root.
    Unauthorized,
    /// Redfish: 503 with `Retry-After: 2`.
    Unavailable,
    /// Redfish: tokens are forgotten as soon as they are given.
    ForgetsTokens,
    /// Redfish: a wrong system comes first in the collection.
    WrongSystemFirst,
    /// Redfish: every change is refused with 412, whatever ETag it carries.
    NoEtagFits,
    /// Redfish: an override is accepted and not set.
    BootNotSet,
    /// Redfish: it answers 202 to power commands, with a task that ends well after two seconds.
    TaskThenDone,
    /// Redfish: sessions and tasks are said to be at another host.
    ForeignLocation,
    /// Redfish: a connection's second request is answered with a reset.
    ResetOnReuse,
    /// Redfish: a header of 256 KiB.
    HugeHeader,
    /// Redfish: each page of the event log names the first one as the next.
    EndlessLog,
    /// Redfish: a certificate whose time is over.
    ExpiredCertificate,
    /// Redfish: it speaks TLS 1.0 only.
    OldTlsOnly,
    /// Redfish: a one-shot override is accepted and set for all boots.
    BootSetForever,
    /// IPMI: nothing is answered.
    IpmiSilent,
    /// IPMI: each answer comes twice.
    IpmiTwice,
    /// IPMI: answers carry a wrong signature.
    IpmiForged,
    /// IPMI: answers carry another session's number.
    IpmiOtherSession,
    /// IPMI: before each answer the one before is sent again.
    IpmiReplays,
    /// IPMI: the session is opened with weaker algorithms than asked.
    IpmiDowngrades,
    /// IPMI: completion code 0xC0, busy, to every command.
    IpmiBusy,
    /// IPMI: each reservation is lost at once.
    IpmiReservationLost,
    /// IPMI: answers to another command.
    IpmiOtherCommand,
    /// IPMI: answers are cut to half.
    IpmiCut,
    /// IPMI: serial over LAN is refused by NACK.
    IpmiSolNack,
    /// IPMI: suite 0 opens without a password.
    IpmiSuiteZero,
    /// IPMI: an override is accepted and not set.
    IpmiBootNotSet,
    /// IPMI: its proof that it knows the password is wrong.
    IpmiImpostor,
    /// IPMI: within a session answers are neither signed nor encrypted.
    IpmiUnsealed,
    /// IPMI: answers come from another port.
    IpmiOtherPort,
    /// IPMI: a one-shot override is accepted and set for all boots.
    IpmiBootSetForever,
    /// IPMI: the event log says that it is full and lost events.
    IpmiLogOverflows,
}

impl Misbehaviour {
    /// All of them.
    pub const ALL: &[Misbehaviour] = &[
        Misbehaviour::ThirtySecondsLate,
        Misbehaviour::PowerReplyLost,
        Misbehaviour::ChassisAgrees,
        Misbehaviour::IdentityChanges,
        Misbehaviour::PowerStateNull,
        Misbehaviour::PowerStateMissing,
        Misbehaviour::PowerStateMistyped,
        Misbehaviour::PowerStateLowerCase,
        Misbehaviour::PowerStateHangs,
        Misbehaviour::EndlessTask,
        Misbehaviour::FailingTask,
        Misbehaviour::Redirects,
        Misbehaviour::ForeignLinks,
        Misbehaviour::HugeBody,
        Misbehaviour::DeepBody,
        Misbehaviour::CutBody,
        Misbehaviour::EndlessBody,
        Misbehaviour::Drip,
        Misbehaviour::HalfJson,
        Misbehaviour::Html,
        Misbehaviour::Reset,
        Misbehaviour::NoTls,
        Misbehaviour::OtherCertificate,
        Misbehaviour::Unauthorized,
        Misbehaviour::Unavailable,
        Misbehaviour::ForgetsTokens,
        Misbehaviour::WrongSystemFirst,
        Misbehaviour::NoEtagFits,
        Misbehaviour::BootNotSet,
        Misbehaviour::TaskThenDone,
        Misbehaviour::ForeignLocation,
        Misbehaviour::ResetOnReuse,
        Misbehaviour::HugeHeader,
        Misbehaviour::EndlessLog,
        Misbehaviour::ExpiredCertificate,
        Misbehaviour::OldTlsOnly,
        Misbehaviour::BootSetForever,
        Misbehaviour::IpmiSilent,
        Misbehaviour::IpmiTwice,
        Misbehaviour::IpmiForged,
        Misbehaviour::IpmiOtherSession,
        Misbehaviour::IpmiReplays,
        Misbehaviour::IpmiDowngrades,
        Misbehaviour::IpmiBusy,
        Misbehaviour::IpmiReservationLost,
        Misbehaviour::IpmiOtherCommand,
        Misbehaviour::IpmiCut,
        Misbehaviour::IpmiSolNack,
        Misbehaviour::IpmiSuiteZero,
        Misbehaviour::IpmiBootNotSet,
        Misbehaviour::IpmiImpostor,
        Misbehaviour::IpmiUnsealed,
        Misbehaviour::IpmiOtherPort,
        Misbehaviour::IpmiBootSetForever,
        Misbehaviour::IpmiLogOverflows,
    ];

    /// Its name, as the control API writes it.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }

    /// By its name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Misbehaviour> {
        Misbehaviour::ALL.iter().copied().find(|one| one.name() == name)
    }
}
