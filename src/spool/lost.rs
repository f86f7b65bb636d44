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
    /// What was read of them is not what was written.
    Damage,
    /// They could not be read for so long that they were given up.
    Unread,
    /// They are larger than a record may be.
    Size,
    /// Their queue has ended, and the disk did not take them.
    Unwritten,
}

impl Lost {
    /// All of them.
    pub(super) const ALL: [Lost; 7] =
        [Lost::Memory, Lost::Bytes, Lost::Age, Lost::Damage, Lost::Unread, Lost::Size, Lost::Unwritten];

    /// The word for metrics and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Lost::Memory => "memory_full",
            Lost::Bytes => "disk_full",
            Lost::Age => "too_old",
            Lost::Damage => "damaged",
            Lost::Unread => "unreadable",
            Lost::Size => "too_large",
            Lost::Unwritten => "not_written",
        }
    }

    /// What happened, and why it may have.
    pub(super) fn words(self) -> &'static str {
        match self {
            Lost::Memory => "the queue is full: the oldest blocks were dropped; the receiver is down or too slow",
            Lost::Bytes => {
                "the queue on disk is full: the oldest blocks were dropped; the receiver is down or too slow"
            }
            Lost::Age => "the oldest blocks were on disk for longer than max_disk_age: they were dropped",
            Lost::Damage => "blocks on disk are damaged: they are lost; the disk may be failing",
            Lost::Unread => {
                "blocks on disk could not be read for a minute: they were given up, their files are kept as *.unread"
            }
            Lost::Size => "a block is larger than what is written to disk: it was dropped",
            Lost::Unwritten => "the queue has ended, and its disk did not take what was left",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_are_named_are_keys_of_the_file() {
        let reference = include_str!("../../config/reference.yaml");
        for why in Lost::ALL {
            let names = why.words().split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
            for name in names.filter(|name| name.contains('_')) {
                assert!(reference.contains(&format!(" {name}: ")), "{name} in {:?}", why.words());
            }
        }
    }
}
