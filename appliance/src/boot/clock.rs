//! Both clocks of this machine, as the gate wants them.

use pxe::gate::Now;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// What the first clock begins with, so that a moment before this boot of the machine can be written too.
const BEFORE_BOOT: Duration = Duration::from_secs(1 << 32);

/// Both clocks. The first counts on while this machine sleeps and goes on across restarts of this process.
#[must_use]
pub fn now() -> Now {
    let read = |clock| {
        let time = clock_gettime(clock);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    Now { elapsed: BEFORE_BOOT + read(ClockId::Boottime), wall: read(ClockId::Realtime) }
}
