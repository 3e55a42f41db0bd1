//! Stories of the prober with hosts that answer, or do not, in this process.

use super::*;
use crate::watch::answer::{Port, answer};
use crate::watch::target::{KUBELET_PORT, ReferencePoint};
use proptest::prelude::*;

const US: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 83, 255, 1));
const MARKS: Marks = Marks { echo_id: 0x7000, first_port: 61_000 };

fn card(number: u32) -> Mac {
    let [_, b, c, d] = number.to_be_bytes();
    Mac([2, 1, 0, b, c, d])
}

fn target(number: u32) -> Target {
    Target {
        host: HostId(number),
        address: Ipv4Addr::from(0x0a53_0000 + number),
        reach: Reach::Attached(card(number)),
        kubelet_port: KUBELET_PORT,
        second_port: 22,
    }
}

fn roster(numbers: impl Iterator<Item = u32>) -> Roster {
    Roster::new(numbers.map(target).collect(), Vec::new(), None, Vec::new()).unwrap()
}

/// A rack of hosts beside a prober, on a clock of its own.
struct Rack {
    prober: Prober,
    now: Elapsed,
    seen: Vec<(HostId, Signal)>,
    looks: Vec<(u64, Option<(bool, bool)>)>,
    under_way: Vec<(Elapsed, Vec<u8>)>,
    busiest_slot: usize,
}

impl Rack {
    fn of(hosts: u32) -> Rack {
        let now = Elapsed(5_000);
        let mut prober = Prober::new(US.0, US.1, MARKS, false, now);
        prober.replace(&roster(1..=hosts));
        Rack { prober, now, seen: Vec::new(), looks: Vec::new(), under_way: Vec::new(), busiest_slot: 0 }
    }

    /// Lets so much time pass. `reply` gets each probe and says what comes back, how many times, and when.
    fn pass(&mut self, span: Millis, mut reply: impl FnMut(&[u8], Elapsed) -> Vec<(Millis, Vec<u8>)>) {
        let end = self.now.plus(span);
        while self.now < end {
            let under_way = std::mem::take(&mut self.under_way);
            let (due, later): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|(at, _)| *at <= self.now);
            self.under_way = later;
            for (_, bytes) in due {
                self.prober.heard(&bytes, self.now);
            }
            let mut frames = Frames::default();
            assert_eq!(self.prober.due(self.now, &mut frames), None);
            let drained = Received { drained: true, ..Received::default() };
            self.prober.received(drained, self.now, self.now);
            self.busiest_slot = self.busiest_slot.max(frames.len());
            for frame in frames.iter() {
                let answers = reply(frame, self.now);
                self.under_way.extend(answers.into_iter().map(|(after, bytes)| (self.now.plus(after), bytes)));
            }
            self.collect();
            self.now = self.now.plus(SLOT_MS);
        }
    }

    fn collect(&mut self) {
        let told = self.prober.told();
        self.seen.append(&mut told.signals);
        self.looks.append(&mut told.looks);
        told.standings.clear();
    }

    fn samples(&self, host: u32, source: Source, seen: Seen) -> u32 {
        let of = |(h, s): &&(HostId, Signal)| *h == HostId(host) && s.source == source && s.seen == seen;
        self.seen.iter().filter(of).map(|(_, s)| s.count).sum()
    }

    fn misses(&self) -> usize {
        self.seen.iter().filter(|(_, s)| s.seen == Seen::Miss).count()
    }
}

fn alive(frame: &[u8]) -> Vec<(Millis, Vec<u8>)> {
    answer(frame, |_| Port::Listens).into_iter().map(|bytes| (1, bytes)).collect()
}

fn is_for(frame: &[u8], number: u32) -> bool {
    frame[..6] == card(number).0
}

#[test]
fn living_hosts_answer_every_source_at_its_pace_and_nothing_is_missed() {
    let mut rack = Rack::of(250);
    rack.pass(20_000, |frame, _| alive(frame));
    for (source, low) in [(Source::Arp, 15), (Source::Icmp, 15), (Source::KubeletPort, 7), (Source::SecondPort, 7)] {
        for host in [1, 100, 250] {
            let samples = rack.samples(host, source, Seen::Answer);
            assert!((low..=20).contains(&samples), "{source:?} of {host}: {samples}");
        }
    }
    assert_eq!(rack.misses(), 0);
    let tally = rack.prober.tally();
    assert_eq!((tally.foreign, tally.duplicates, tally.unsent), (0, 0, 0));
    // The second is filled evenly: 250 hosts are three a slot at most, with four frames each.
    assert!(rack.busiest_slot <= 12, "{}", rack.busiest_slot);
    // Told in runs, not one by one.
    assert!(rack.seen.len() < 250 * 4 * 6, "{}", rack.seen.len());
}

#[test]
fn a_host_that_dies_is_missed_three_times_within_four_seconds_and_looked_at_faster() {
    let mut rack = Rack::of(10);
    rack.pass(6_000, |frame, _| alive(frame));
    let died = rack.now;
    rack.seen.clear();
    rack.pass(5_000, |frame, _| if is_for(frame, 3) { Vec::new() } else { alive(frame) });
    for source in [Source::Icmp, Source::KubeletPort, Source::SecondPort] {
        let of = |(h, s): &&(HostId, Signal)| *h == HostId(3) && s.source == source && s.seen == Seen::Miss;
        let third = rack.seen.iter().filter(of).nth(2).map(|(_, s)| s.last.since(died)).unwrap();
        assert!(third <= 5_000, "{source:?}: {third} ms");
    }
    assert!(rack.seen.iter().all(|(h, s)| *h == HostId(3) || s.seen == Seen::Answer));
}

#[test]
fn a_reset_is_refused_and_a_hanging_port_behind_a_living_kernel_is_missed() {
    let mut rack = Rack::of(1);
    let ports = |asked| if asked == KUBELET_PORT { Port::Closed } else { Port::Hangs };
    rack.pass(8_000, |frame, _| answer(frame, ports).into_iter().map(|bytes| (1, bytes)).collect());
    assert!(rack.samples(1, Source::KubeletPort, Seen::Refused) >= 3);
    assert!(rack.samples(1, Source::SecondPort, Seen::Miss) >= 3);
    assert!(rack.samples(1, Source::Icmp, Seen::Answer) >= 3);
}

#[test]
fn another_card_that_answers_for_the_host_is_no_answer() {
    let mut rack = Rack::of(1);
    rack.pass(8_000, |frame, _| {
        let mut answers = alive(frame);
        for (_, bytes) in &mut answers {
            bytes[6..12].copy_from_slice(&card(99).0);
            if bytes[12..14] == [8, 6] {
                bytes[22..28].copy_from_slice(&card(99).0);
            }
        }
        answers
    });
    assert!(rack.seen.iter().all(|(_, s)| s.seen == Seen::Miss));
    assert!(rack.misses() > 0 && rack.prober.tally().foreign > 10);
}

#[test]
fn one_host_cannot_answer_for_another_nor_yesterday_for_today() {
    let mut rack = Rack::of(2);
    let mut heard_by_two: Vec<Vec<u8>> = Vec::new();
    // Host 1 is dead. Host 2 sends what it was asked itself, in the name and with the card of host 1.
    rack.pass(8_000, |frame, _| {
        if is_for(frame, 1) {
            return Vec::new();
        }
        let mut answers = alive(frame);
        for (after, mut bytes) in answers.clone() {
            if bytes[12..14] == [8, 0] {
                bytes[6..12].copy_from_slice(&card(1).0);
                bytes[26..30].copy_from_slice(&target(1).address.octets());
                answers.push((after, bytes));
            }
        }
        heard_by_two.extend(answers.iter().map(|(_, bytes)| bytes.clone()));
        answers
    });
    assert_eq!(rack.samples(1, Source::Icmp, Seen::Answer), 0);
    assert_eq!(rack.samples(1, Source::KubeletPort, Seen::Answer), 0);
    assert!(rack.samples(1, Source::Icmp, Seen::Miss) >= 3);
    // Host 2 dies, and its old answers are played again for ever.
    rack.pass(12_000, |_, _| Vec::new());
    let before = rack.samples(2, Source::Icmp, Seen::Answer);
    let old: Vec<Vec<u8>> = heard_by_two.into_iter().filter(|bytes| bytes[12..14] == [8, 0]).collect();
    for bytes in old {
        rack.prober.heard(&bytes, rack.now);
    }
    rack.collect();
    assert_eq!(rack.samples(2, Source::Icmp, Seen::Answer), before);
}

#[test]
fn a_late_answer_proves_life_and_a_second_copy_proves_nothing() {
    let mut rack = Rack::of(1);
    rack.pass(10_000, |frame, _| {
        let late = |(_, bytes): (Millis, Vec<u8>)| [(1_500, bytes.clone()), (1_600, bytes)];
        alive(frame).into_iter().flat_map(late).collect()
    });
    assert!(rack.samples(1, Source::Icmp, Seen::Answer) >= 5);
    let tally = rack.prober.tally();
    assert!(tally.late > 0 && tally.duplicates > 0, "{tally:?}");
}

#[test]
fn a_prober_that_slept_calls_nothing_missed_and_says_that_it_slept() {
    let mut rack = Rack::of(3);
    rack.pass(3_000, |frame, _| alive(frame));
    let mut frames = Frames::default();
    for (slept, stall) in [(1_500, false), (2_500, true)] {
        rack.seen.clear();
        // Probes are under way; then it sleeps.
        for _ in 0..120 {
            rack.prober.due(rack.now, &mut frames);
            rack.now = rack.now.plus(SLOT_MS);
        }
        rack.now = rack.now.plus(slept);
        let told = rack.prober.due(rack.now, &mut frames);
        assert_eq!(told.is_some(), stall, "slept {slept} ms: {told:?}");
        rack.prober.received(Received { drained: true, ..Received::default() }, rack.now, rack.now);
        rack.collect();
        assert_eq!(rack.misses(), 0, "slept {slept} ms");
        rack.pass(2_000, |frame, _| alive(frame));
        rack.seen.clear();
    }
    assert_eq!(rack.prober.tally().stalls, 1);
}

/// A machine without CPU time: turns come 600 to 900 ms apart, and whatever a turn reads lay there up to as long.
#[test]
fn hosts_that_answer_a_prober_without_cpu_time_are_never_missed() {
    let mut rack = Rack::of(40);
    rack.pass(3_000, |frame, _| alive(frame));
    rack.seen.clear();
    let mut frames = Frames::default();
    let mut lying: Vec<(Elapsed, Vec<u8>)> = Vec::new();
    for turn in 0..200_u64 {
        // Read up to when the turn was to begin; then the processor was somebody else's.
        let drained_at = rack.now;
        rack.now = rack.now.plus(600 + turn * 37 % 300);
        let (read, later): (Vec<_>, Vec<_>) = lying.into_iter().partition(|(at, _)| *at <= drained_at);
        lying = later;
        for (_, bytes) in read {
            rack.prober.heard(&bytes, rack.now);
        }
        rack.prober.due(rack.now, &mut frames);
        rack.prober.received(Received { drained: true, ..Received::default() }, drained_at, rack.now);
        rack.prober.left(rack.now, rack.now);
        let answers = frames.iter().flat_map(alive).map(|(after, bytes)| (rack.now.plus(after), bytes));
        lying.extend(answers.collect::<Vec<_>>());
        rack.collect();
    }
    assert_eq!(rack.misses(), 0, "it was us who did not read");
    assert!(rack.prober.tally().late_turns > 100 && rack.prober.tally().void_misses > 0);
}

/// The answers are there 5 ms after each probe, but the receiver reads them with a delay of its own.
#[test]
fn a_delayed_receiver_misses_a_dead_host_and_no_living_one() {
    for delay_ms in [100, 300, 450] {
        let mut rack = Rack::of(5);
        let mut frames = Frames::default();
        let mut lying: Vec<(Elapsed, Vec<u8>)> = Vec::new();
        for _ in 0..400 {
            let drained_at = rack.now;
            // Between the read and the turn's own moment so much time is lost.
            rack.now = rack.now.plus(delay_ms);
            let (read, later): (Vec<_>, Vec<_>) = lying.into_iter().partition(|(at, _)| *at <= drained_at);
            lying = later;
            for (_, bytes) in read {
                rack.prober.heard(&bytes, rack.now);
            }
            rack.prober.due(rack.now, &mut frames);
            rack.prober.received(Received { drained: true, ..Received::default() }, drained_at, rack.now);
            rack.prober.left(rack.now, rack.now);
            let living = frames.iter().filter(|frame| !is_for(frame, 2));
            lying.extend(
                living.flat_map(alive).map(|(after, bytes)| (rack.now.plus(after + 5), bytes)).collect::<Vec<_>>(),
            );
            rack.collect();
        }
        let missed = |host: u32| rack.samples(host, Source::Icmp, Seen::Miss);
        // With 450 ms between two turns no read is ever within 500 ms of a deadline: then nobody is missed.
        assert_eq!(missed(2) > 10, delay_ms <= 300, "{delay_ms} ms: the dead host is missed {} times", missed(2));
        assert_eq!([1, 3, 4, 5].map(missed), [0; 4], "{delay_ms} ms");
    }
}

#[test]
fn a_burst_that_left_late_proves_nothing_by_silence() {
    let mut rack = Rack::of(2);
    let mut frames = Frames::default();
    for _ in 0..300 {
        let built_at = rack.now;
        rack.prober.due(built_at, &mut frames);
        rack.now = rack.now.plus(if frames.is_empty() { SLOT_MS } else { 501 });
        rack.prober.left(built_at, rack.now);
        rack.prober.received(Received { drained: true, ..Received::default() }, rack.now, rack.now);
    }
    rack.collect();
    assert_eq!(rack.misses(), 0);
}

#[test]
fn a_receiver_that_is_not_drained_or_lost_frames_calls_nothing_missed() {
    for received in
        [Received { drained: false, ..Received::default() }, Received { lost: 1, drained: true, ..Received::default() }]
    {
        let mut rack = Rack::of(2);
        let mut frames = Frames::default();
        for _ in 0..200 {
            rack.prober.due(rack.now, &mut frames);
            rack.prober.received(received, rack.now, rack.now);
            rack.now = rack.now.plus(SLOT_MS);
        }
        rack.collect();
        assert_eq!(rack.misses(), 0, "{received:?}");
    }
}

#[test]
fn a_probe_that_did_not_leave_is_not_missed() {
    let mut rack = Rack::of(2);
    let mut frames = Frames::default();
    for _ in 0..300 {
        rack.prober.due(rack.now, &mut frames);
        (0..frames.len()).for_each(|place| rack.prober.unsent(place));
        rack.prober.received(Received { drained: true, ..Received::default() }, rack.now, rack.now);
        rack.now = rack.now.plus(SLOT_MS);
    }
    rack.collect();
    let tally = rack.prober.tally();
    assert_eq!((rack.misses(), tally.missed, tally.sent), (0, 0, 0));
    assert!(tally.unsent > 10);
}

#[test]
fn a_roster_replaced_in_flight_misses_nobody_and_still_hears_those_who_stay() {
    let mut rack = Rack::of(4);
    rack.pass(3_000, |frame, _| alive(frame));
    rack.seen.clear();
    let mut answers = Vec::new();
    let mut frames = Frames::default();
    for _ in 0..100 {
        rack.prober.due(rack.now, &mut frames);
        answers.extend(frames.iter().flat_map(alive));
        rack.now = rack.now.plus(SLOT_MS);
    }
    // 1 is gone, 4 has another card, 5 is new; 2 and 3 stay, at other places.
    let mut moved = roster([3, 2, 4, 5].into_iter()).targets().to_vec();
    moved[2].reach = Reach::Attached(card(44));
    rack.prober.replace(&Roster::new(moved, Vec::new(), None, Vec::new()).unwrap());
    for (_, bytes) in answers {
        rack.prober.heard(&bytes, rack.now);
    }
    rack.prober.received(Received { drained: true, ..Received::default() }, rack.now, rack.now);
    // Told with the next rounds.
    rack.pass(700, |_, _| Vec::new());
    assert_eq!(rack.misses(), 0);
    rack.pass(6_000, |frame, _| if is_for(frame, 44) { Vec::new() } else { alive(frame) });
    assert!(rack.samples(2, Source::Icmp, Seen::Answer) > 0 && rack.samples(3, Source::Icmp, Seen::Answer) > 0);
    assert_eq!(rack.samples(1, Source::Icmp, Seen::Answer) + rack.samples(4, Source::Icmp, Seen::Answer), 0);
    assert!(rack.samples(4, Source::Icmp, Seen::Miss) >= 3);
}

#[test]
fn rounds_wrap_without_a_miss() {
    let mut rack = Rack::of(1);
    rack.prober.slot = 65_530 * SLOTS;
    rack.pass(15_000, |frame, _| alive(frame));
    assert_eq!(rack.misses(), 0);
    assert!(rack.samples(1, Source::Icmp, Seen::Answer) >= 10);
    assert!(rack.samples(1, Source::KubeletPort, Seen::Answer) >= 4);
}

#[test]
fn a_routed_host_is_reached_through_the_gateway_once_its_card_is_learned() {
    let (gateway, reference) = (Ipv4Addr::new(10, 83, 255, 254), Ipv4Addr::new(10, 99, 0, 9));
    let far = Target { reach: Reach::Routed, address: Ipv4Addr::new(10, 99, 0, 1), ..target(1) };
    let point = ReferencePoint { address: reference, domain: None, attached: false };
    let mut rack = Rack::of(0);
    rack.prober.replace(&Roster::new(vec![far], Vec::new(), Some(gateway), vec![point]).unwrap());
    rack.pass(1_000, |_, _| Vec::new());
    let blind = rack.prober.own_sight(true, rack.now);
    assert!(!blind.gateway && !blind.references[0].answers);
    assert_eq!(rack.misses(), 0, "a probe without a way never left");
    rack.pass(8_000, |frame, _| {
        let mut frame = frame.to_vec();
        if frame[..6] == [0xff; 6] {
            frame[..6].copy_from_slice(&card(77).0);
        }
        assert_eq!(frame[..6], card(77).0);
        alive(&frame)
    });
    assert!(
        rack.samples(1, Source::Icmp, Seen::Answer) >= 3 && rack.samples(1, Source::KubeletPort, Seen::Answer) >= 2
    );
    assert_eq!(rack.samples(1, Source::Arp, Seen::Answer), 0);
    let sight = rack.prober.own_sight(true, rack.now);
    assert!(sight.gateway && sight.references[0].answers);
    rack.pass(5_000, |_, _| Vec::new());
    let sight = rack.prober.own_sight(true, rack.now);
    assert!(!sight.gateway && !sight.references[0].answers);
}

#[test]
fn a_look_tells_what_answers_within_the_last_look() {
    let mut rack = Rack::of(3);
    rack.pass(100, |frame, _| alive(frame));
    for (number, host) in [(1, 1), (2, 2), (3, 3), (4, 99)] {
        rack.prober.look(number, HostId(host), rack.now);
    }
    let began = rack.now;
    let ports = |frame: &[u8]| if is_for(frame, 3) { Port::Hangs } else { Port::Closed };
    rack.pass(2_000, |frame, _| {
        let dead = is_for(frame, 2);
        answer(frame, |_| ports(frame)).filter(|_| !dead).into_iter().map(|bytes| (1, bytes)).collect()
    });
    rack.looks.sort_unstable();
    let expected = [(1, Some((true, true))), (2, Some((false, false))), (3, Some((true, false))), (4, None)];
    assert_eq!(rack.looks, expected);
    assert!(rack.now.since(began) <= 2_000);
}

#[test]
fn a_look_whose_answers_may_be_lost_tells_nothing() {
    let mut rack = Rack::of(1);
    rack.prober.look(1, HostId(1), rack.now);
    rack.pass(50, |_, _| Vec::new());
    rack.prober.received(Received { lost: 3, drained: true, ..Received::default() }, rack.now, rack.now);
    rack.collect();
    assert_eq!(rack.looks, [(1, None)]);
}

proptest! {
    #[test]
    fn foreign_frames_never_become_an_answer(changes in proptest::collection::vec((0..60_usize, 1..=255_u8), 1..4)) {
        // Any change of what counts: cards, addresses, identifiers, numbers, cookies.
        let counts = |frame: &[u8], at: usize| match (frame[12..14] == [8, 6], frame[23]) {
            (true, _) => (6..12).contains(&at) || (14..32).contains(&at),
            (false, 1) => (6..12).contains(&at) || (26..34).contains(&at) || (38..50).contains(&at),
            (false, _) => (6..12).contains(&at) || (26..38).contains(&at) || (42..46).contains(&at),
        };
        let mut rack = Rack::of(1);
        rack.pass(2_500, |frame, _| {
            let mut answers = alive(frame);
            answers.retain_mut(|(_, bytes)| {
                let mut changed = false;
                for (at, by) in &changes {
                    if counts(bytes, *at) {
                        bytes[*at] ^= by;
                        changed = true;
                    }
                }
                // Two changes of one byte may cancel out: what is right again is not sent.
                changed && answer(frame, |_| Port::Listens).as_ref() != Some(&*bytes)
            });
            answers
        });
        let answered = rack.seen.iter().filter(|(_, s)| s.seen != Seen::Miss).count();
        prop_assert_eq!(answered, 0);
    }
}
