//! A walk over the fields of a protobuf message, for where a whole message is rewritten without being decoded.

use super::WireError;

/// One field of a message.
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) content: Content<'a>,
    /// All its bytes, the tag included.
    pub(super) whole: &'a [u8],
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A number of four or eight bytes.
    Fixed,
}

/// The fields of a message in their order; an error is the last that comes.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Option<Field<'a>> {
        let from = self.rest;
        let tag = take_varint(&mut self.rest)?;
        let content = match tag & 7 {
            0 => Content::Varint(take_varint(&mut self.rest)?),
            1 => self.take(8).map(|_| Content::Fixed)?,
            2 => {
                let length = usize::try_from(take_varint(&mut self.rest)?).ok()?;
                Content::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Content::Fixed)?,
            _ => return None,
        };
        let whole = &from[..from.len() - self.rest.len()];
        Some(Field { number: tag >> 3, content, whole })
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(WireError::Damaged("a field is cut off")))
    }
}

/// The number at the front of `bytes`, which moves behind it; `None` if there is no whole one.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    match *bytes {
        // Nearly all there are: tags, lengths, and references to the first texts.
        [only @ 0..0x80, rest @ ..] => {
            *bytes = rest;
            Some(u64::from(*only))
        }
        [low, high @ 0..0x80, rest @ ..] => {
            *bytes = rest;
            Some(u64::from(*low & 0x7f) | u64::from(*high) << 7)
        }
        _ => take_long_varint(bytes),
    }
}

fn take_long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}
