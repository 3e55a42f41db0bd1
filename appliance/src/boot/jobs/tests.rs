use super::*;

fn empty_folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rackmedic-jobs-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn arm(jobs: &Jobs, name: &str, card: u8) -> Name {
    let (name, mac): (Name, _) = (name.parse().unwrap(), Mac([2, 0, 0, 0, 0, card]));
    jobs.arm(name.clone(), mac, Task::example(mac)).unwrap();
    name
}

fn later(then: Now, seconds: u64) -> Now {
    let more = Duration::from_secs(seconds);
    Now { elapsed: then.elapsed + more, wall: then.wall + more }
}

#[test]
fn an_installer_that_repeats_itself_is_not_alive_and_one_that_waits_is_for_ten_minutes() {
    let folder = empty_folder("alive");
    let jobs = Jobs::open(&folder, HashMap::new()).unwrap();
    let name = arm(&jobs, "job", 1);
    let mut held = Held::new(jobs.job(&name).unwrap());
    let begun = held.since;
    assert!(held.comes_further(InstallStage::Write, 5, later(begun, 1)));
    assert!(!held.comes_further(InstallStage::Write, 5, later(begun, 2)), "it hangs");
    assert_eq!(held.touched, later(begun, 1));
    assert!(held.comes_further(InstallStage::Write, 6, later(begun, 3)));
    assert!(held.shows(later(begun, 3)));
    assert!(!held.shows(later(begun, 12)), "not each second");
    assert!(held.shows(later(begun, 13)));
    // It asks for the files of the first boot, and then it hangs in writing them.
    let mut held = Held::new(held.job);
    let begun = held.since;
    assert!((1..600).all(|second| held.comes_further(InstallStage::Configure, 0, later(begun, second))));
    assert!(!held.comes_further(InstallStage::Configure, 0, later(begun, 600)));
    assert_eq!(held.touched, later(begun, 599));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn that_an_installer_comes_further_is_shown_beside_its_job() {
    let folder = empty_folder("shown");
    let jobs = Jobs::open(&folder, HashMap::new()).unwrap();
    let name = arm(&jobs, "job", 1);
    assert_eq!(alive::last(&folder, &name), None);
    jobs.told(&"unknown".parse().unwrap(), InstallStage::Write, 1);
    jobs.told(&name, InstallStage::Write, 1);
    let first = alive::last(&folder, &name);
    assert!(first.is_some());
    jobs.told(&name, InstallStage::Write, 2);
    assert_eq!(alive::last(&folder, &name), first, "not each second");
    // In a new stage nothing was shown yet.
    jobs.hello(&name, "b", Sha256::of(b"s"), None).unwrap();
    jobs.told(&name, InstallStage::Verify, 1);
    assert!(alive::last(&folder, &name) > first);
    assert!(alive::last(&folder, &"unknown".parse().unwrap()).is_none());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_card_whose_installer_works_is_not_armed_for_another_job() {
    let folder = empty_folder("works");
    let ours = Jobs::open(&folder, HashMap::new()).unwrap();
    let servers = Jobs::open(&folder, HashMap::new()).unwrap();
    let name = arm(&ours, "job", 1);
    servers.refresh().unwrap();
    servers.hello(&name, "b", Sha256::of(b"s"), None).unwrap();
    // That was 31 minutes ago, and to ours, which hears only of ends, it still waits for its hello.
    let long = Duration::from_secs(31 * 60);
    let mut known = ours.known.write().unwrap();
    let opened = &mut known.jobs.get_mut(&name).unwrap().job.opened;
    *opened = Now { elapsed: opened.elapsed.saturating_sub(long), wall: opened.wall - long };
    drop(known);
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let again = |name: &str| ours.arm(name.parse().unwrap(), mac, Task::example(mac));
    servers.told(&name, InstallStage::Write, 1);
    assert!(matches!(again("second"), Err(JobError::Busy { .. })));
    // When it has not shown itself either, it is gone.
    std::fs::remove_file(folder.join("job.alive")).unwrap();
    again("third").unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_end_that_another_wrote_is_taken_and_what_is_over_is_not_opened_again() {
    let folder = empty_folder("ends");
    let ours = Jobs::open(&folder, HashMap::new()).unwrap();
    let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
    let name = arm(&ours, "job", 1);
    let armed = std::fs::read(folder.join("job.json")).unwrap();
    assert_eq!(theirs.refresh().unwrap(), std::slice::from_ref(&name));
    theirs.hello(&name, "b", Sha256::of(b"s"), None).unwrap();
    assert!(ours.refresh().unwrap().is_empty());
    let failure = protocol::install::Failure {
        stage: InstallStage::Write,
        code: protocol::install::FailureCode::DiskWrite,
        sentence: "it does not write".to_owned(),
        candidates: Vec::new(),
        disk_touched: true,
    };
    theirs.advance(&name, |_| Some(State::Failed { failure: Box::new(failure) })).unwrap();
    assert_eq!(ours.refresh().unwrap(), std::slice::from_ref(&name));
    assert!(matches!(ours.job(&name).unwrap().state, State::Failed { .. }));
    std::fs::write(folder.join("job.json"), armed).unwrap();
    assert!(ours.refresh().unwrap().is_empty());
    assert_eq!(ours.hello(&name, "c", Sha256::of(b"s"), None).unwrap(), HelloState::Over);
    assert!(matches!(ours.job(&name).unwrap().state, State::Failed { .. }));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn files_of_jobs_that_are_over_take_no_place_from_those_that_are_not() {
    let folder = empty_folder("places");
    let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
    for (name, card) in [("a", 1), ("b", 2), ("c", 3)] {
        let name = arm(&theirs, name, card);
        theirs.advance(&name, |state| Some(state.closed("disarmed"))).unwrap();
    }
    let ours = Jobs::open(&folder, HashMap::new()).unwrap();
    let fourth = arm(&theirs, "d", 4);
    assert_eq!(ours.refresh_within(1).unwrap(), std::slice::from_ref(&fourth));
    let late = arm(&theirs, "e", 5);
    assert!(ours.refresh_within(1).unwrap().is_empty() && ours.job(&late).is_none(), "there is one place");
    theirs.advance(&fourth, |state| Some(state.closed("disarmed"))).unwrap();
    assert_eq!(ours.refresh_within(1).unwrap(), std::slice::from_ref(&fourth));
    assert_eq!(ours.refresh_within(1).unwrap(), std::slice::from_ref(&late));
    std::fs::remove_dir_all(&folder).unwrap();
}
