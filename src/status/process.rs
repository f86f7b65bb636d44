//! What the process takes, under the names that every Prometheus client library uses.
//!
//! Read from `/proc` when somebody asks. Where that is not there (not Linux), what it would tell is absent and the rest
//! stands.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::{Clock, unix_ms};

/// Registers the metrics of this process, which starts now.
pub fn register_process_metrics(registry: &mut Registry, clock: &Clock) {
    registry.register_collector(Box::new(Process { started: unix_ms(clock.now()) as f64 / 1000.0 }));
}

#[derive(Debug)]
struct Process {
    /// Seconds since 1970.
    started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Processor time taken, of the user and of the system";
        let family = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        ConstCounter::new(processor_seconds()).encode(family)?;

        let mut gauge = |name, help, unit: Option<Unit>, value: Option<f64>| match value {
            Some(value) => ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                unit.as_ref(),
                MetricType::Gauge,
            )?),
            None => Ok(()),
        };
        gauge("process_start_time", "When the agent started, since 1970", Some(Unit::Seconds), Some(self.started))?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name| number_behind(&status, name).map(|kib| kib * 1024.0);
        gauge("process_resident_memory", "Memory in use", Some(Unit::Bytes), bytes("VmRSS:"))?;
        gauge("process_virtual_memory", "Address space in use", Some(Unit::Bytes), bytes("VmSize:"))?;
        let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
        gauge("process_open_fds", "Files and sockets that are open", None, open)?;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let most = number_behind(&limits, "Max open files");
        gauge("process_max_fds", "Files and sockets that may be open at once", None, most)
    }
}

fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The first number behind `name`, which begins a line.
fn number_behind(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_names() {
        let status = "Name:\tmeshscrape\nVmRSS:\t   12345 kB\n";
        assert_eq!(number_behind(status, "VmRSS:"), Some(12345.0));
        assert_eq!(number_behind(status, "VmSize:"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \n";
        assert_eq!(number_behind(limits, "Max open files"), Some(1024.0));
        assert_eq!(number_behind("Max open files            unlimited", "Max open files"), None);
    }
}
