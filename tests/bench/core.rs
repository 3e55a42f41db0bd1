//! What the pure core costs: a fold, and a decision per host event at 100, 1,000 and 10,000 hosts. The peer is the same
//! decision at 100 hosts in the same run: a ratio of about one says that no decision walks the fleet.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use healing::decide::decide;
use healing::event::{Event, View};
use healing::evidence::{Evidence, fold};
use healing::id::HostId;
use healing::policy::{Limits, Policy, Site as SitePolicy};
use healing::rules::Enforced;
use healing::signal::{Seen, Signal, Source};
use healing::time::{Elapsed, MINUTE, Now, SECOND};
use healing::world::{World, touch};
use sim::fault::Fault;
use sim::simulation::Simulation;
use sim::site::Site;
use std::hint::black_box;
use std::time::Duration;

fn at(ms: u64) -> Now {
    Now { elapsed: Elapsed(ms), ..Now::default() }
}

/// Evidence of a host that answers, as a running prober leaves it.
fn answering() -> (Evidence, u64) {
    let limits = Limits::default();
    let mut evidence = Evidence::default();
    let mut time = 0;
    for second in 1..600 {
        time = second * SECOND;
        for source in [Source::Icmp, Source::KubeletPort, Source::SecondPort] {
            fold(&mut evidence, &Signal::sample(source, Seen::Answer, Elapsed(time)), &limits, at(time));
        }
        if second % 10 == 0 {
            fold(&mut evidence, &Signal::sample(Source::Lease, Seen::Renewed, Elapsed(time)), &limits, at(time));
        }
    }
    (evidence, time)
}

fn folding(criterion: &mut Criterion) {
    let limits = Limits::default();
    let (evidence, time) = answering();
    let mut group = criterion.benchmark_group("fold");
    for (name, seen) in [("one more answer", Seen::Answer), ("one miss after answers", Seen::Miss)] {
        let signal = Signal::sample(Source::Icmp, seen, Elapsed(time + SECOND));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || evidence.clone(),
                |evidence| black_box(fold(evidence, black_box(&signal), &limits, at(time + SECOND))),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// A site with one host whose kernel is stuck, at the moment when its evidence is complete; and a host that is well.
fn sick_site(hosts: u32) -> (World, Now, [(HostId, Box<View>); 2]) {
    let site = Site::uniform(hosts, 7);
    let mut simulation = Simulation::with_policy(Enforced, &site, &Policy::<SitePolicy>::default());
    let sick = HostId(hosts / 2);
    simulation.at_fault(10 * MINUTE, Fault::KernelStuck, Some(sick));
    simulation.run_until(10 * MINUTE + 12 * SECOND);
    let appliance = &simulation.appliances()[0];
    let now = appliance.now(10 * MINUTE + 12 * SECOND);
    let view = |host| appliance.view(&simulation.reality, host).unwrap();
    let well = HostId(hosts / 2 + 1);
    (simulation.world().clone(), now, [(well, view(well)), (sick, view(sick))])
}

fn deciding(criterion: &mut Criterion) {
    println!("records read by one decision:");
    let sites: Vec<_> = [100, 1_000, 10_000].into_iter().map(|hosts| (hosts, sick_site(hosts))).collect();
    for (index, name) in ["well", "silent"].into_iter().enumerate() {
        let mut group = criterion.benchmark_group(format!("decide, a {name} host"));
        for (hosts, (world, now, views)) in &sites {
            let (host, view) = &views[index];
            let event = Event::Wake { host: *host, view: view.clone() };
            let before = touch::records();
            black_box(decide(Enforced, world, &event, *now));
            println!("  a {name} host among {hosts}: {}", touch::records() - before);
            group.bench_with_input(BenchmarkId::from_parameter(hosts), &event, |bencher, event| {
                bencher.iter(|| black_box(decide(Enforced, world, black_box(event), *now)));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = core;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1)).without_plots();
    targets = folding, deciding
}
criterion_main!(core);
