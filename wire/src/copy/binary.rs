//! COPY's binary format.
//!
//! ```text
//!   "PGCOPY\n\xff\r\n\0" | flags u32 | extension: length u32, bytes
//!   row:   fields i16 | per field: length i32 (-1: null), bytes in the type's binary form
//!   end:   -1 i16; an input that ends where a row would begin is complete, too
//! ```
//! Flags 16 to 31 are those that a reader must know; it knows none (16 said that rows have OIDs).

use super::Fields;
use super::columns::Columns;
use crate::error::{SqlError, SqlResult};
use crate::sqlstate;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const CRITICAL_FLAGS: u32 = 0xffff_0000;
const WITH_OIDS: u32 = 1 << 16;

pub(super) fn read(input: &[u8], columns: &mut Columns<'_>) -> SqlResult<()> {
    let mut rest = header(input)?;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        columns.begin(number);
        let count = take(&mut rest).ok_or_else(|| cut_off().context(format!("line {number}")))?;
        let count = i16::from_be_bytes(count);
        if count == -1 {
            return match rest.is_empty() {
                true => Ok(()),
                false => Err(bad("received copy data after EOF marker").context(format!("line {number}"))),
            };
        }
        if usize::try_from(count).ok() != Some(columns.width()) {
            let message = format!("row field count is {count}, expected {}", columns.width());
            return Err(bad(message).context(format!("line {number}")));
        }
        for _ in 0..count {
            let field = field(&mut rest).map_err(|error| error.context(columns.place()))?;
            columns.binary(field)?;
        }
        columns.end()?;
    }
    Ok(())
}

/// What follows the header.
fn header(input: &[u8]) -> SqlResult<&[u8]> {
    let mut rest = input
        .strip_prefix(SIGNATURE)
        .ok_or_else(|| bad("COPY file signature not recognized"))?;
    let wrong = |what: &str| bad(format!("invalid COPY file header ({what})"));
    let flags = u32::from_be_bytes(take(&mut rest).ok_or_else(|| wrong("missing flags"))?);
    if flags & WITH_OIDS != 0 {
        return Err(wrong("WITH OIDS"));
    }
    if flags & CRITICAL_FLAGS != 0 {
        return Err(bad("unrecognized critical flags in COPY file header"));
    }
    let length = i32::from_be_bytes(take(&mut rest).ok_or_else(|| wrong("missing length"))?);
    let length = usize::try_from(length).map_err(|_| wrong("missing length"))?;
    rest.get(length..).ok_or_else(|| wrong("wrong length"))
}

/// The next field; `None` is null.
#[inline]
fn field<'a>(rest: &mut &'a [u8]) -> SqlResult<Option<&'a [u8]>> {
    let length = i32::from_be_bytes(take(rest).ok_or_else(cut_off)?);
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| bad("invalid field size"))?;
    let (value, after) = rest.split_at_checked(length).ok_or_else(cut_off)?;
    *rest = after;
    Ok(Some(value))
}

#[inline]
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(sqlstate::BAD_COPY_FORMAT, message)
}

fn cut_off() -> SqlError {
    bad("unexpected EOF in COPY data")
}
