//! Why blocks are dropped before their receiver had them: a closed list.

/// Why blocks were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lost {
    /// The memory was full.
    Memory,
    /// The disk had as many bytes as it may have.
    Bytes,
    /// They were on disk for too long.
    Age,
    /// They could not be read from disk any more.
    Damage,
    /// They are larger than a record may be.
    Size,
}

impl Lost {
    /// All of them.
    pub(super) const ALL: [Lost; 5] = [Lost::Memory, Lost::Bytes, Lost::Age, Lost::Damage, Lost::Size];

    /// The word for metrics and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Lost::Memory => "memory_full",
            Lost::Bytes => "disk_full",
            Lost::Age => "too_old",
            Lost::Damage => "damaged",
            Lost::Size => "too_large",
        }
    }

    /// What happened, and why it may have.
    pub(super) fn words(self) -> &'static str {
        match self {
            Lost::Memory => "the queue is full: the oldest blocks were dropped; the receiver is down or too slow",
            Lost::Bytes => {
                "the queue on disk is full: the oldest blocks were dropped; the receiver is down or too slow"
            }
            Lost::Age => "the oldest blocks were on disk for longer than max_age: they were dropped",
            Lost::Damage => "blocks on disk cannot be read any more: they are lost; the disk may be failing",
            Lost::Size => "a block is larger than what is written to disk: it was dropped",
        }
    }
}
