//! The workloads by name: what each measures and in what unit. Never here: how it is run.

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Publish one at a time, surviving kill -9.
    PublishOne,
    /// Publish by 100, surviving kill -9.
    PublishBatch,
    /// Publish one at a time, surviving power loss, one thread.
    Durable,
    /// Publish by 100, surviving power loss, one thread.
    DurableBatch,
    /// The same from 64 blocked threads.
    DurableMany,
    /// Receive and acknowledge one at a time.
    ReceiveOne,
    /// Receive and acknowledge by 100.
    ReceiveBatch,
    /// From publish to receive, paced.
    Live,
    /// Open with messages waiting, after a clean close.
    OpenClean,
    /// The same after kill -9.
    OpenKilled,
    /// Bytes on disk for each message waiting.
    DiskBytes,
}

/// How figures of a workload are written and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Messages a second: more is better.
    Rate,
    /// Microseconds, median and 99th percentile: less is better.
    Latency,
    /// Milliseconds: less is better.
    Time,
    /// Bytes: less is better.
    Bytes,
}

impl Workload {
    /// All, in the order of the tables. What is paced comes first, before memory is warmed for the others.
    pub(crate) const ALL: [Self; 11] = [
        Self::Live,
        Self::PublishOne,
        Self::PublishBatch,
        Self::Durable,
        Self::DurableBatch,
        Self::DurableMany,
        Self::ReceiveOne,
        Self::ReceiveBatch,
        Self::OpenClean,
        Self::OpenKilled,
        Self::DiskBytes,
    ];

    /// Its name on the command line and of its plot.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PublishOne => "publish-one",
            Self::PublishBatch => "publish-by-100",
            Self::Durable => "durable-one",
            Self::DurableBatch => "durable-by-100",
            Self::DurableMany => "durable-64-threads",
            Self::ReceiveOne => "receive-one",
            Self::ReceiveBatch => "receive-by-100",
            Self::Live => "live",
            Self::OpenClean => "open-clean",
            Self::OpenKilled => "open-killed",
            Self::DiskBytes => "disk-bytes",
        }
    }

    /// The workload of this name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// Its heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::PublishOne => "Publish one at a time, surviving kill -9",
            Self::PublishBatch => "Publish by 100, surviving kill -9",
            Self::Durable => "Publish one at a time, surviving power loss",
            Self::DurableBatch => "Publish by 100, surviving power loss",
            Self::DurableMany => "Publish from 64 blocked threads, surviving power loss",
            Self::ReceiveOne => "Receive and acknowledge one at a time",
            Self::ReceiveBatch => "Receive and acknowledge by 100",
            Self::Live => "From publish to receive, at 50,000 messages a second",
            Self::OpenClean => "Open with messages waiting, after a clean close",
            Self::OpenKilled => "Open with messages waiting, after kill -9",
            Self::DiskBytes => "Bytes on disk for each message",
        }
    }

    /// What exactly is measured and checked.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::PublishOne => {
                "One thread; each call returns when its message survives the death of the process. Then all are taken out and checked."
            }
            Self::PublishBatch => "100 messages a call, in whatever form the queue offers for that.",
            Self::Durable => {
                "One thread; each call returns when its message survives the loss of power. Flushes are those of the whole device, counted by the kernel: \
                 fewer than one a message would be a promise not kept. These runs stay near the beginning of each file."
            }
            Self::DurableBatch => "The same with 100 messages a call: whoever offers it does them with one sync.",
            Self::DurableMany => {
                "64 threads, each waiting for its own message before it publishes the next: who shares a sync between them needs fewer flushes than messages."
            }
            Self::ReceiveOne => {
                "From a full queue. Whether an acknowledgement that returned survives kill -9 stands beside each figure."
            }
            Self::ReceiveBatch => "The same with 100 messages a call.",
            Self::Live => {
                "One thread publishes one at a time on a fixed schedule (surviving kill -9), another receives and acknowledges what is there, \
                 up to 100. The time runs from the moment at which a message was due, so that a publisher that is held up counts. \
                 A queue that does not reach nine tenths of the rate has no figure. A consumer of a queue that cannot wait asks again and again, \
                 which is fast and costs a core: the remark says how many cores the process kept busy, one of them for the schedule."
            }
            Self::OpenClean => {
                "In a new process, from the call of open until the first message is received and acknowledged. Then all others are taken out and checked."
            }
            Self::OpenKilled => {
                "The same, after the process that published was killed while open. Its last thousand messages were published one at a time."
            }
            Self::DiskBytes => {
                "Blocks in use in the directory after a clean close, divided by the messages of 100 bytes waiting there. They are published one at a time as \
                 far as the time allows, the rest by 1000. One run."
            }
        }
    }

    /// Why another queue may be the better one here without any reason of its own.
    pub(crate) fn usual_reason(self) -> Option<&'static str> {
        match self {
            Self::Durable | Self::DurableBatch => {
                Some("a call is one sync, there as here; what is left is mostly the device's")
            }
            Self::OpenKilled => Some(
                "millpond copies what nothing proves to be durable to fresh blocks and syncs it, before it hands out a message",
            ),
            _ => None,
        }
    }

    /// Whether its figure depends on what a page of memory costs, more than on the device.
    pub(crate) fn wants_warm_memory(self) -> bool {
        let is_rate = matches!(self, Self::PublishOne | Self::PublishBatch | Self::ReceiveOne | Self::ReceiveBatch);
        is_rate || matches!(self, Self::OpenClean | Self::OpenKilled)
    }

    /// Whether its publishes must survive power loss.
    pub(crate) fn is_durable(self) -> bool {
        matches!(self, Self::Durable | Self::DurableBatch | Self::DurableMany)
    }

    /// Whether it acknowledges in the part that is measured.
    pub(crate) fn acknowledges(self) -> bool {
        matches!(self, Self::ReceiveOne | Self::ReceiveBatch | Self::Live)
    }

    /// The unit of its figures.
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Live => Unit::Latency,
            Self::OpenClean | Self::OpenKilled => Unit::Time,
            Self::DiskBytes => Unit::Bytes,
            _ => Unit::Rate,
        }
    }

    /// What the bare machine does for the same task, where that is measured.
    pub(crate) fn floor(self) -> Option<&'static str> {
        match self {
            Self::PublishOne => Some("floor: mapped store + crc32"),
            Self::PublishBatch => Some("floor: pwrite of 100 + crc32 each"),
            Self::Durable => Some("floor: pwrite + fdatasync"),
            Self::DurableBatch => Some("floor: pwrite of 100 + fdatasync"),
            Self::DurableMany => Some("floor: leader syncs for all"),
            Self::Live => Some("floor: crossbeam channel"),
            _ => None,
        }
    }
}

impl Unit {
    /// Whether a larger figure is the better one.
    pub(crate) fn more_is_better(self) -> bool {
        self == Self::Rate
    }

    /// A figure in words.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Rate if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
            Self::Rate if value >= 1e3 => format!("{:.1} k/s", value / 1e3),
            Self::Rate => format!("{value:.0} /s"),
            Self::Latency if value >= 1e6 => format!("{:.1} s", value / 1e6),
            Self::Latency if value >= 1e3 => format!("{:.1} ms", value / 1e3),
            Self::Latency => format!("{value:.1} us"),
            Self::Time if value >= 1e4 => format!("{:.1} s", value / 1e3),
            Self::Time if value >= 10.0 => format!("{value:.1} ms"),
            Self::Time => format!("{value:.2} ms"),
            Self::Bytes => format!("{value:.0} B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        assert!(Workload::ALL.into_iter().all(|workload| Workload::of_name(workload.name()) == Some(workload)));
        assert_eq!(Workload::of_name("nothing"), None);
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(Unit::Rate.show(1_234_567.0), "1.23 M/s");
        assert_eq!(Unit::Rate.show(1_234.0), "1.2 k/s");
        assert_eq!(Unit::Latency.show(36_000.0), "36.0 ms");
        assert_eq!(Unit::Time.show(0.12), "0.12 ms");
    }
}
