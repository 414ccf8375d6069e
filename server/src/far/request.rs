//! What regions ask each other for, as the bytes of a Flight ticket.
//!
//! A scan is the plain [`ScanRequest`]. A partial aggregation begins with [`MARK`], with which no scan can begin, so that
//! a region which knows scans only refuses it, instead of answering with rows; then it says which engine made it.

use serde::{Deserialize, Serialize};

use super::ScanRequest;
use super::partial::{PartialRequest, engine};

/// More bytes than a length has, and so no beginning of anything else.
const MARK: [u8; 10] = [0xff; 10];

/// What is asked of an owner.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Rows.
    Rows(ScanRequest),
    /// States of groups of rows.
    States(Box<PartialRequest>),
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRequest {
    /// They cannot be read.
    Unreadable,
    /// Another engine made it.
    OtherEngine,
}

#[derive(Serialize, Deserialize)]
struct Marked<T> {
    engine: String,
    request: T,
}

impl Request {
    /// The rows that are read.
    pub fn scan(&self) -> &ScanRequest {
        match self {
            Request::Rows(scan) => scan,
            Request::States(partial) => &partial.scan,
        }
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Request::Rows(scan) => postcard::to_stdvec(scan).expect("a request is plain data"),
            Request::States(partial) => {
                let marked = Marked {
                    engine: engine().to_owned(),
                    request: partial,
                };
                postcard::to_extend(&marked, MARK.to_vec()).expect("a request is plain data")
            }
        }
    }

    /// From what a peer sent.
    ///
    /// # Errors
    /// For other bytes, and what another engine wrote: that is not read any further.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoRequest> {
        let (is_marked, body) = unmarked(bytes)?;
        let request = match is_marked {
            false => postcard::from_bytes(body).map(Request::Rows),
            true => postcard::from_bytes(body).map(|partial| Request::States(Box::new(partial))),
        };
        request.map_err(|_| NoRequest::Unreadable)
    }

    /// Who asks, by the first bytes: the rest is not read.
    ///
    /// # Errors
    /// As [`Request::from_bytes`].
    pub fn sender(bytes: &[u8]) -> Result<&str, NoRequest> {
        let (_, body) = unmarked(bytes)?;
        leading_text(body).map(|(from, _)| from)
    }
}

/// Whether bytes are marked, and what follows that.
fn unmarked(bytes: &[u8]) -> Result<(bool, &[u8]), NoRequest> {
    let Some(marked) = bytes.strip_prefix(&MARK) else {
        return Ok((false, bytes));
    };
    let (made_by, body) = leading_text(marked)?;
    match made_by == engine() {
        true => Ok((true, body)),
        false => Err(NoRequest::OtherEngine),
    }
}

fn leading_text(bytes: &[u8]) -> Result<(&str, &[u8]), NoRequest> {
    postcard::take_from_bytes(bytes).map_err(|_| NoRequest::Unreadable)
}

#[cfg(test)]
mod tests {
    use tributary_replication::Epoch;
    use tributary_storage::{ObjectId, OriginId, RegionId};

    use super::*;

    fn scan() -> ScanRequest {
        ScanRequest {
            from: "eu".to_owned(),
            table: ObjectId(7),
            origin: OriginId {
                region: RegionId(1),
                incarnation: 1,
            },
            epoch: Epoch(9),
            columns: vec![0],
            hidden: false,
            condition: None,
            values: Vec::new(),
            rows_max: None,
        }
    }

    #[test]
    fn a_partial_aggregation_is_refused_by_whoever_knows_scans_only_and_by_another_engine() {
        let partial = Request::States(Box::new(PartialRequest {
            scan: scan(),
            stages: Vec::new(),
            groups: Vec::new(),
            aggregates: Vec::new(),
            limit: None,
            values: Vec::new(),
            sides: Vec::new(),
        }));
        let bytes = partial.to_bytes();
        assert_eq!(Request::from_bytes(&bytes), Ok(partial));
        for bytes in [&bytes, &Request::Rows(scan()).to_bytes()] {
            assert_eq!(Request::sender(bytes), Ok("eu"));
            assert_eq!(Request::sender(&bytes[..2]), Err(NoRequest::Unreadable));
        }
        assert!(postcard::from_bytes::<ScanRequest>(&bytes).is_err());
        let place = bytes.windows(10).position(|part| part == b"datafusion");
        let mut other = bytes.clone();
        other[place.expect("it is named")] = b'D';
        assert_eq!(Request::from_bytes(&other), Err(NoRequest::OtherEngine));
        assert_eq!(Request::sender(&other), Err(NoRequest::OtherEngine));
        let rows = Request::Rows(scan());
        assert_eq!(
            rows.to_bytes(),
            postcard::to_stdvec(&scan()).expect("plain data"),
            "as before"
        );
        assert_eq!(Request::from_bytes(&rows.to_bytes()), Ok(rows));
    }
}
