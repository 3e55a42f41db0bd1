//! How the BMC misbehaves, and how it is treated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use machine::{
    BmcError, BmcEventKind, BmcFault, BmcReply, BmcRequest, BootOverride, Fault, Machine, OffCause, Power, Spec,
    StageRead,
};
use support::{MINUTE, cycle, host, off, power};

#[test]
fn a_bmc_that_lies_says_off_of_a_host_that_runs() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::SaysOff);
    assert_eq!(power(&mut host, 1), Power::On);
    host.bmc_request(2, BmcRequest::ForceOff).result.unwrap();
    assert_eq!(power(&mut host, 10_000), Power::Off);
    assert_eq!(host.truth().power, Power::On);
    assert!(host.answers().icmp);
    let watts = host.bmc_request(10_001, BmcRequest::ReadWatts).result;
    assert!(matches!(watts, Ok(BmcReply::Watts(w)) if w > 100), "the watts bear witness against it");
}

#[test]
fn a_bmc_that_says_on_hides_an_off() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::SaysOn);
    host.bmc_request(1, BmcRequest::ForceOff).result.unwrap();
    assert_eq!(power(&mut host, 10_000), Power::On);
    assert_eq!(host.truth().power, Power::Off);
}

#[test]
fn an_early_off_is_said_while_the_host_still_answers() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::SaysOffEarly);
    host.inject_bmc(0, BmcFault::SlowOff(20_000));
    host.bmc_request(0, BmcRequest::ForceOff).result.unwrap();
    assert_eq!(power(&mut host, 5_000), Power::Off);
    assert!(host.answers().icmp && host.truth().power == Power::GoingOff);
    assert_eq!((power(&mut host, 30_000), host.truth().power), (Power::Off, Power::Off));
}

#[test]
fn a_stale_copy_is_told_for_a_while_after_the_change() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::Stale(30_000));
    host.bmc_request(0, BmcRequest::ForceOff).result.unwrap();
    host.advance(6_000);
    assert_eq!(host.truth().power, Power::Off);
    assert_ne!(power(&mut host, 6_000), Power::Off);
    assert_eq!(power(&mut host, 40_000), Power::Off);
}

#[test]
fn a_lost_reply_still_had_its_effect() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::LosesReply);
    assert_eq!(host.bmc_request(1, BmcRequest::ForceOff).result, Err(BmcError::ReplyLost));
    assert_eq!(power(&mut host, 10_000), Power::Off);
}

#[test]
fn a_repeated_off_strikes_the_host_that_was_switched_on_again() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::RepeatsPower(5 * MINUTE));
    let at = off(&mut host, 0);
    host.bmc_request(at, BmcRequest::PowerOn).result.unwrap();
    host.advance(5 * MINUTE - 1);
    assert_eq!(host.power(), Power::On);
    host.advance(6 * MINUTE);
    assert_eq!(host.power(), Power::Off);
    assert_eq!(host.power_ledger().hard_cuts, 2);
}

#[test]
fn an_accepted_command_may_do_nothing_at_all() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::IgnoresPower);
    assert_eq!(host.bmc_request(1, BmcRequest::ForceOff).result, Ok(BmcReply::Accepted));
    assert_eq!(power(&mut host, MINUTE), Power::On);
    assert_eq!(host.power_ledger().hard_cuts, 0);
}

#[test]
fn what_is_so_already_is_a_conflict_and_changes_nothing() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::Conflicts);
    assert_eq!(host.bmc_request(1, BmcRequest::PowerOn).result, Ok(BmcReply::Conflict));
    let at = off(&mut host, 2);
    assert_eq!(host.bmc_request(at, BmcRequest::ForceOff).result, Ok(BmcReply::Conflict));
    assert_eq!(host.power_ledger().recent.len(), 1);
}

#[test]
fn a_conflict_after_off_may_mean_not_yet_instead_of_already() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::SettlesAfterOff(30_000));
    let at = off(&mut host, 0);
    assert_eq!(host.bmc_request(at, BmcRequest::PowerOn).result, Ok(BmcReply::Conflict));
    assert_eq!(host.power(), Power::Off);
    assert_eq!(host.bmc_request(MINUTE, BmcRequest::PowerOn).result, Ok(BmcReply::Accepted));
    assert_eq!(host.power(), Power::On);
}

#[test]
fn a_hard_reset_shows_no_off_to_anyone_and_counts_as_a_cut() {
    let mut host = host();
    host.bmc_request(0, BmcRequest::ForceRestart).result.unwrap();
    assert_eq!((power(&mut host, 1), host.bmc_stage(1)), (Power::On, StageRead::Post));
    let cut = *host.power_ledger().recent.back().unwrap();
    assert!(cut.reset && cut.kubelet_ok);
    host.advance(10 * MINUTE);
    assert!(host.truth().healthy && host.boots() == 2);
}

#[test]
fn a_cut_during_a_firmware_task_is_recorded_as_such() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::FirmwareTask(10 * MINUTE));
    assert_eq!(host.bmc_request(1, BmcRequest::ReadTask).result, Ok(BmcReply::Task(true)));
    assert_eq!(host.bmc_stage(1), StageRead::FirmwareTask);
    off(&mut host, 2);
    assert_eq!(host.power_ledger().hard_cuts_in_firmware_task, 1);
}

#[test]
fn a_sideband_bmc_dies_with_the_feed_and_has_to_start_first() {
    let mut host = Machine::new(Spec { bmc_shares_feed: true, ..Spec::default() }, 1);
    host.inject(1, Fault::PowerLost(OffCause::AcLoss));
    assert_eq!(host.bmc_request(2, BmcRequest::ReadPower).result, Err(BmcError::Silent));
    host.inject(3, Fault::PowerReturns);
    assert_eq!(host.bmc_request(4, BmcRequest::ReadPower).result, Err(BmcError::Silent));
    assert_eq!(power(&mut host, 2 * MINUTE), Power::Off, "its policy is to stay off");
}

#[test]
fn a_dead_bmc_comes_back_when_its_own_feed_was_cut() {
    let mut host = Machine::new(Spec { bmc_shares_feed: true, ..Spec::default() }, 1);
    host.inject_bmc(0, BmcFault::Dead);
    assert_eq!(host.bmc_request(MINUTE, BmcRequest::Identify).result, Err(BmcError::Silent));
    host.inject(2 * MINUTE, Fault::PowerLost(OffCause::AcLoss));
    host.inject(3 * MINUTE, Fault::PowerReturns);
    assert!(host.bmc_request(5 * MINUTE, BmcRequest::Identify).result.is_ok());
}

#[test]
fn a_restarting_bmc_is_deaf_for_its_boot_and_leaves_the_host_alone() {
    let mut host = host();
    host.bmc_request(0, BmcRequest::Reset).result.unwrap();
    assert_eq!(host.bmc_request(1_000, BmcRequest::ReadPower).result, Err(BmcError::Silent));
    assert!(host.truth().healthy);
    assert_eq!(power(&mut host, 2 * MINUTE), Power::On);
}

#[test]
fn a_board_without_identity_shows_none() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::ShowsIdentity(0));
    assert_eq!(host.bmc_request(1, BmcRequest::Identify).result, Ok(BmcReply::Identity(0)));
    host.inject_bmc(2, BmcFault::Cured);
    assert_eq!(host.bmc_request(3, BmcRequest::Identify).result, Ok(BmcReply::Identity(1)));
}

#[test]
fn a_bmc_that_ignores_one_shot_boot_shows_it_when_it_is_read_back() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::IgnoresBoot);
    let set = BmcRequest::SetBootOnce(BootOverride::NetworkOnce);
    assert_eq!(host.bmc_request(1, set).result, Ok(BmcReply::Accepted));
    assert_eq!(host.bmc_request(2_000, BmcRequest::ReadBootOnce).result, Ok(BmcReply::Boot(BootOverride::None)));
}

#[test]
fn some_refuse_a_boot_change_during_the_self_test() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::NoBootChangeInPost);
    let set = BmcRequest::SetBootOnce(BootOverride::HttpOnce);
    host.bmc_request(0, BmcRequest::ForceRestart).result.unwrap();
    assert_eq!(host.bmc_request(1_000, set).result, Err(BmcError::Busy));
    host.advance(10 * MINUTE);
    assert_eq!(host.bmc_request(10 * MINUTE, set).result, Ok(BmcReply::Accepted));
}

#[test]
fn sessions_run_out_and_come_back_when_unused() {
    let mut host = Machine::new(Spec { bmc_sessions_max: 2, ..Spec::default() }, 1);
    let first = host.bmc_login(0, true).unwrap();
    host.bmc_login(0, true).unwrap();
    assert_eq!(host.bmc_login(1, true), Err(BmcError::Busy));
    assert!(host.bmc_logout(2, first) && !host.bmc_use_session(3, first));
    let third = host.bmc_login(4, true).unwrap();
    assert!(host.bmc_use_session(299_000, third));
    host.bmc_login(6 * MINUTE, true).expect("the second one was forgotten");
    assert!(host.bmc_use_session(6 * MINUTE, third), "the third one was used");
    assert_eq!((host.bmc_sessions(), host.bmc_ledger().sessions_most), (2, 2));
    host.bmc_request(7 * MINUTE, BmcRequest::Reset).result.unwrap();
    assert_eq!(host.bmc_sessions(), 0);
}

#[test]
fn wrong_passwords_lock_everybody_out_for_a_while() {
    let mut host = host();
    for at in 0..5 {
        assert_eq!(host.bmc_login(at, false), Err(BmcError::Refused));
    }
    assert_eq!(host.bmc_login(10, true), Err(BmcError::Refused));
    assert_eq!(host.bmc_request(11, BmcRequest::ReadPower).result, Err(BmcError::Refused));
    assert_eq!((host.bmc_ledger().wrong_passwords, host.bmc_ledger().lockouts), (5, 1));
    assert!(host.bmc_login(11 * MINUTE, true).is_ok());
}

#[test]
fn bad_manners_are_counted() {
    let mut host = host();
    let first = host.bmc_request(0, BmcRequest::ReadPower);
    host.bmc_request(first.arrives_at, BmcRequest::ReadPower).result.unwrap();
    assert_eq!(host.bmc_ledger().overlapping, 0);
    host.bmc_request(first.arrives_at + 1, BmcRequest::ForceOff).result.unwrap();
    assert_eq!(host.bmc_ledger().overlapping, 1);
    host.bmc_abort(10_000);
    host.bmc_request(10_000, BmcRequest::PowerOn).result.unwrap();
    host.bmc_request(10_900, BmcRequest::SetBootOnce(BootOverride::None)).result.unwrap();
    let ledger = host.bmc_ledger();
    assert_eq!((ledger.writes, ledger.power_writes, ledger.writes_too_close), (3, 2, 1));
}

#[test]
fn an_aborted_poll_does_not_count_as_overlapped() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::Slow(20_000));
    host.bmc_request(0, BmcRequest::ReadPower).result.unwrap();
    host.bmc_abort(1_000);
    host.bmc_request(1_000, BmcRequest::ForceOff).result.unwrap();
    assert_eq!(host.bmc_ledger().overlapping, 0);
}

#[test]
fn the_event_log_tells_the_story_and_stays_bounded() {
    let mut host = host();
    cycle(&mut host, 0);
    let Ok(BmcReply::Events(events)) = host.bmc_request(20 * MINUTE, BmcRequest::ReadEvents).result else {
        panic!("no events");
    };
    let kinds: Vec<BmcEventKind> = events.iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [BmcEventKind::PoweredOff(OffCause::Command), BmcEventKind::PoweredOn, BmcEventKind::PostBegan]);
    for at in 0..200 {
        host.inject(30 * MINUTE + at, Fault::Button);
    }
    let Ok(BmcReply::Events(events)) = host.bmc_request(40 * MINUTE, BmcRequest::ReadEvents).result else {
        panic!("no events");
    };
    assert_eq!(events.len(), 64);
    assert!(events.windows(2).all(|w| w[0].id + 1 == w[1].id && w[0].at <= w[1].at));
}

#[test]
fn off_by_others_reads_as_a_command_that_was_not_ours() {
    let mut host = host();
    host.inject(0, Fault::PowerByOthers { on: false });
    assert_eq!(power(&mut host, 10_000), Power::Off);
    assert_eq!(host.off_cause(), OffCause::Command);
    assert_eq!(host.bmc_ledger().power_writes, 0);
}
