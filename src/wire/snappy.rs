//! The snappy block format with its length prefix taken off and put on again.

use prost::Message as _;

use super::encode::push_varint;
use super::{WireError, proto, v2};
use crate::model::{Block, WriteFormat};

/// How large a request or a block may be, decompressed, to be read: 64 MiB.
pub const MAX_DECODED_BYTES: usize = 64 << 20;

/// Compresses a message to snappy elements, without the length prefix that would make them a block: the `elements` of
/// a [`Block`] whose `raw_len` is the length of `message`.
///
/// Fails only for messages that the format cannot hold, 4 GiB and more.
pub fn compress(message: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut block = snap::raw::Encoder::new().compress_vec(message).map_err(|error| match error {
        snap::Error::TooBig { max, .. } => WireError::TooLong { len: message.len(), limit: max },
        other => WireError::Snappy(other),
    })?;
    block.drain(..prefix_len(&block));
    block.shrink_to_fit();
    Ok(block)
}

/// The body of a request that holds `message` and nothing else; fails as [`compress`].
pub fn pack(message: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut body = Vec::new();
    push_varint(&mut body, message.len() as u64);
    body.append(&mut compress(message)?);
    Ok(body)
}

/// The body of a request that holds the samples of all `blocks`, in their order.
///
/// # Errors
/// The blocks are not of one format, or one of 2.0 is damaged.
pub fn join(blocks: &[&Block]) -> Result<Vec<u8>, WireError> {
    let format = blocks.first().map_or(WriteFormat::V1, |block| block.format);
    if blocks.iter().any(|block| block.format != format) {
        return Err(WireError::Mixed);
    }
    match format {
        WriteFormat::V1 => Ok(concatenated(blocks)),
        WriteFormat::V2 => v2::join(blocks),
    }
}

/// The body of a request that is made of the elements of `blocks` as they are.
pub(super) fn concatenated(blocks: &[&Block]) -> Vec<u8> {
    let raw_len: u64 = blocks.iter().map(|block| u64::from(block.raw_len)).sum();
    let mut body = Vec::with_capacity(10 + blocks.iter().map(|block| block.elements.len()).sum::<usize>());
    push_varint(&mut body, raw_len);
    for block in blocks {
        body.extend_from_slice(&block.elements);
    }
    body
}

/// The message of a block.
pub(super) fn message_of(block: &Block) -> Result<Vec<u8>, WireError> {
    decompress(&concatenated(&[block]))
}

/// Reads the body of a request of 1.0 back. The length it claims is looked at before anything is allocated.
pub fn decode(body: &[u8]) -> Result<proto::WriteRequest, WireError> {
    let message = decompress(body)?;
    proto::WriteRequest::decode(message.as_slice()).map_err(WireError::Protobuf)
}

/// Reads the body of a request of 2.0 back, as [`decode`] does one of 1.0.
pub fn decode_v2(body: &[u8]) -> Result<v2::proto::Request, WireError> {
    let message = decompress(body)?;
    v2::proto::Request::decode(message.as_slice()).map_err(WireError::Protobuf)
}

fn decompress(body: &[u8]) -> Result<Vec<u8>, WireError> {
    let claimed = snap::raw::decompress_len(body).map_err(WireError::Snappy)?;
    if claimed > MAX_DECODED_BYTES {
        return Err(WireError::ClaimsTooMuch { claimed, limit: MAX_DECODED_BYTES });
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(WireError::Snappy)
}

/// How many bytes the length prefix of a block has: all with the high bit set, and one without.
fn prefix_len(block: &[u8]) -> usize {
    block.iter().take_while(|&&byte| byte >= 0x80).count() + 1
}
