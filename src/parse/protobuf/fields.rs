//! The fields of one protobuf message, one after the other, without an allocation.

use super::error::Problem;

/// One field: its number, what it holds, and where in the message its content begins.
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) content: Content<'a>,
    pub(super) at: usize,
}

/// What a field holds, as far as it matters for a family.
pub(super) enum Content<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, told apart by the wire type.
    Fixed(u64),
}

/// A walk over the fields of a message.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// The next field; `None` at the end. An error is told with its place in the message.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, (usize, Problem)> {
        if self.at == self.message.len() {
            return Ok(None);
        }
        let from = self.at;
        let wrong = |problem| (from, problem);
        let key = self.varint().ok_or(wrong(Problem::Varint))?;
        let number = key >> 3;
        if number == 0 {
            return Err(wrong(Problem::FieldNumber));
        }
        let cut = wrong(Problem::FieldTooLong { number });
        let content = match key & 7 {
            0 => Content::Varint(self.varint().ok_or(wrong(Problem::Varint))?),
            1 => self.take(8).map(|_| Content::Fixed(1)).ok_or(cut)?,
            2 => {
                let length = self.varint().ok_or(wrong(Problem::Varint))?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                Content::Bytes(self.take(length).ok_or(cut)?)
            }
            5 => self.take(4).map(|_| Content::Fixed(5)).ok_or(cut)?,
            wire_type => return Err(wrong(Problem::WireType { number, wire_type })),
        };
        let at = match content {
            Content::Bytes(bytes) => self.at - bytes.len(),
            _ => from,
        };
        Ok(Some(Field { number, content, at }))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let Varint::Whole { value, length } = varint(&self.message[self.at..]) else { return None };
        self.at += length;
        Some(value)
    }
}

/// What stands at the front of some bytes.
pub(super) enum Varint {
    /// A number of `length` bytes.
    Whole { value: u64, length: usize },
    /// The beginning of a number.
    Cut,
    /// More than ten bytes, or more than 64 bits.
    Wrong,
}

pub(super) fn varint(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the last one of 64 bits.
        if at == 9 && bits > 1 {
            return Varint::Wrong;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Varint::Whole { value, length: at + 1 };
        }
    }
    if bytes.len() < 10 { Varint::Cut } else { Varint::Wrong }
}
