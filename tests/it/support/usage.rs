//! What a process of this machine has used so far, as Linux counts it.

use std::time::Duration;

/// A tick of the clock in `/proc/PID/stat`: Linux shows hundredths to everybody.
const TICK: Duration = Duration::from_millis(10);

/// Memory and time of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Bytes in memory now.
    pub(crate) resident: u64,
    /// The most bytes it ever had there.
    pub(crate) peak: u64,
    /// Processor time, in and for it.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// That of a process that runs.
    pub(crate) fn of(pid: u32) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a process that runs");
        let status = read("status");
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of the status");
            1024 * line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().expect("a number of kB")
        };
        let stat = read("stat");
        // Behind the name, which may hold anything, the state is the third field; user and system time the 14th and 15th.
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u32>().expect("ticks"));
        Self { resident: bytes("VmRSS:"), peak: bytes("VmHWM:"), cpu: TICK * ticks.sum::<u32>() }
    }
}
