//! The messages of a link and their bytes.
//!
//! ```text
//! "TRIL" | format u16 | crc32 u32 | kind u8 | body: a bundle as it is, anything else in postcard
//!                                 └──────── checksummed ────────────────────────────────────┘
//! ```

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tributary_storage::{ChainHash, OriginId, RegionId};

use crate::bundle::{MESSAGE_BYTES_MAX, ORIGINS_MAX};
use crate::error::{ReplicationError, Result};
use crate::frontier::{ClusterId, Epoch, Frontier};
use crate::hlc::Tick;

/// The version of the link protocol spoken here.
pub const LINK_FORMAT: u16 = 5;

/// The most bytes of a message that is not a bundle.
pub const CONTROL_BYTES_MAX: usize = 1 << 20;

/// The longest reason for a refusal that is read, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// The longest region name, in bytes.
const NAME_BYTES_MAX: usize = 256;

const MAGIC: [u8; 4] = *b"TRIL";
const PREFIX_BYTES: usize = 4 + 2 + 4;

/// What the two ends of a link say to each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Opens a session; see [`Hello`].
    Hello(Box<Hello>),
    /// The other end will not be talked to.
    Refuse {
        /// Why, for a person to read.
        reason: String,
    },
    /// A bundle, encoded. See [`crate::Bundle`].
    Bundle(Bytes),
    /// Everything up to here is durable at the other end.
    Ack {
        /// Its whole frontier.
        frontier: Frontier,
    },
    /// A bundle cannot be applied before these epochs are known. Without a need: something was dropped.
    Lack {
        /// Origins and the epochs of them that are missing.
        need: Vec<(OriginId, Epoch)>,
        /// The whole frontier of who lacks: the receiver sends again from there.
        frontier: Frontier,
    },
    /// A sign of life; see [`Heartbeat`].
    Heartbeat(Box<Heartbeat>),
    /// How much of a stage is held: an answer to its chunks.
    Staged {
        /// The stage, as its sender named it.
        stage: u64,
        /// The chunks before this one are durable; it is the next that is wanted.
        chunks: u32,
        /// There is no room for it: it was dropped, and may be tried again later.
        is_full: bool,
    },
}

/// Who is there, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Names this session of the sender.
    pub session: u64,
    /// The session of the receiver that this answers.
    pub answers: Option<u64>,
    /// The protocol the sender speaks.
    pub format: u16,
    /// The sender's region name.
    pub name: String,
    /// Its cluster; `None` while it is joining.
    pub cluster: Option<ClusterId>,
    /// Itself, as a writer; `None` while it is joining.
    pub origin: Option<OriginId>,
    /// Its whole durable frontier.
    pub frontier: Frontier,
    /// The chain hashes it knows at these epochs of its frontier.
    pub chains: Vec<(OriginId, Epoch, ChainHash)>,
    /// How each region stands, as far as the sender's catalog says.
    pub standings: Vec<Standing>,
}

/// How a region stands to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The region.
    pub region: RegionId,
    /// The incarnation that counts.
    pub incarnation: u32,
    /// Whether it was dropped.
    pub dropped: bool,
}

impl Hello {
    /// The sender's region; `None` while it is joining.
    pub fn region(&self) -> Option<RegionId> {
        self.origin.map(|origin| origin.region)
    }
}

/// A sign of life with everything that changes all the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The tick the sender has reached.
    pub tick: Tick,
    /// Its durable frontier.
    pub frontier: Frontier,
    /// The frontier its own contribution was computed at.
    pub processed: Frontier,
    /// The sender's monotonic time, to be echoed.
    pub sent_ms: u64,
    /// The newest heartbeat of the receiver that the sender has seen.
    pub echo: Option<Echo>,
    /// How busy the sender is, 0 to 100.
    pub pressure: u8,
    /// Origins that the sender hears of directly: they need not be relayed to it.
    pub direct: Vec<OriginId>,
    /// The chain hashes it knows at these epochs of its frontier.
    pub chains: Vec<(OriginId, Epoch, ChainHash)>,
}

/// An answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The time that stood in it.
    pub sent_ms: u64,
    /// How long it lay before this answer was sent.
    pub held_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct LackBody {
    need: Vec<(OriginId, Epoch)>,
    frontier: Frontier,
}

impl Message {
    /// The bytes to send.
    pub fn encode(&self) -> Bytes {
        let (kind, body) = match self {
            Self::Hello(hello) => (1, to_bytes(hello)),
            Self::Refuse { reason } => (2, to_bytes(&shortened(reason))),
            Self::Bundle(bundle) => (3, bundle.clone()),
            Self::Ack { frontier } => (4, to_bytes(frontier)),
            Self::Lack { need, frontier } => (
                5,
                to_bytes(&LackBody {
                    need: need.clone(),
                    frontier: frontier.clone(),
                }),
            ),
            Self::Heartbeat(heartbeat) => (6, to_bytes(heartbeat)),
            Self::Staged {
                stage,
                chunks,
                is_full,
            } => (7, to_bytes(&(*stage, *chunks, *is_full))),
        };
        let mut out = BytesMut::with_capacity(PREFIX_BYTES + 1 + body.len());
        out.put_slice(&MAGIC);
        out.put_u16_le(LINK_FORMAT);
        out.put_u32_le(0);
        out.put_u8(kind);
        out.put_slice(&body);
        let checksum = crc32fast::hash(&out[PREFIX_BYTES..]);
        out[6..10].copy_from_slice(&checksum.to_le_bytes());
        out.freeze()
    }

    /// Reads what a peer sent. A bundle inside is not looked into.
    ///
    /// # Errors
    /// `Corrupt`, `Format` or `TooLarge`; whatever the bytes are, this does not panic.
    pub fn decode(bytes: &Bytes) -> Result<Message> {
        let bytes_max = MESSAGE_BYTES_MAX + PREFIX_BYTES + 1;
        if bytes.len() > bytes_max {
            let what = "a message".to_string();
            return Err(ReplicationError::TooLarge {
                what,
                bytes: bytes.len(),
                bytes_max,
            });
        }
        if bytes.len() <= PREFIX_BYTES || bytes[..4] != MAGIC {
            return Err(corrupt("it does not begin as one"));
        }
        let format = u16::from_le_bytes([bytes[4], bytes[5]]);
        if format != LINK_FORMAT {
            let what = "a message".to_string();
            return Err(ReplicationError::Format {
                what,
                found: format,
                known: LINK_FORMAT,
            });
        }
        let checksum = u32::from_le_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]);
        if crc32fast::hash(&bytes[PREFIX_BYTES..]) != checksum {
            return Err(corrupt("the checksum does not match"));
        }
        let body = bytes.slice(PREFIX_BYTES + 1..);
        let kind = bytes[PREFIX_BYTES];
        if kind != 3 && body.len() > CONTROL_BYTES_MAX {
            let what = "a message without a bundle".to_string();
            return Err(ReplicationError::TooLarge {
                what,
                bytes: body.len(),
                bytes_max: CONTROL_BYTES_MAX,
            });
        }
        let message = match kind {
            1 => Self::Hello(from_bytes(&body)?),
            2 => Self::Refuse {
                reason: from_bytes(&body)?,
            },
            3 => Self::Bundle(body),
            4 => Self::Ack {
                frontier: from_bytes(&body)?,
            },
            5 => {
                let LackBody { need, frontier } = from_bytes(&body)?;
                Self::Lack { need, frontier }
            }
            6 => Self::Heartbeat(from_bytes(&body)?),
            7 => {
                let (stage, chunks, is_full) = from_bytes(&body)?;
                Self::Staged {
                    stage,
                    chunks,
                    is_full,
                }
            }
            other => return Err(corrupt(format!("there is no kind {other}"))),
        };
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<()> {
        let fits = match self {
            Self::Hello(hello) => {
                hello.frontier.len() <= ORIGINS_MAX
                    && hello.chains.len() <= ORIGINS_MAX
                    && hello.standings.len() <= ORIGINS_MAX
                    && hello.name.len() <= NAME_BYTES_MAX
                    && hello.cluster.is_some() == hello.origin.is_some()
            }
            Self::Refuse { reason } => reason.len() <= REASON_BYTES_MAX,
            Self::Bundle(_) | Self::Staged { .. } => true,
            Self::Ack { frontier } => frontier.len() <= ORIGINS_MAX,
            Self::Lack { need, frontier } => need.len() <= ORIGINS_MAX && frontier.len() <= ORIGINS_MAX,
            Self::Heartbeat(heartbeat) => {
                heartbeat.frontier.len() <= ORIGINS_MAX
                    && heartbeat.processed.len() <= ORIGINS_MAX
                    && heartbeat.direct.len() <= ORIGINS_MAX
                    && heartbeat.chains.len() <= ORIGINS_MAX
            }
        };
        if fits {
            Ok(())
        } else {
            Err(corrupt("it holds more than any region sends"))
        }
    }
}

/// The message in words, for transcripts and logs. Times and sessions are left out.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(hello) => {
                write!(f, "hello from {}", hello.name)?;
                match hello.origin {
                    Some(origin) => write!(f, " ({origin})")?,
                    None => write!(f, " (joining)")?,
                }
                write!(f, " at {}", hello.frontier)?;
                if hello.answers.is_some() {
                    write!(f, ", answering")
                } else {
                    Ok(())
                }
            }
            Self::Refuse { reason } => write!(f, "refuse: {reason}"),
            Self::Bundle(bytes) => match crate::Bundle::decode_header(bytes) {
                Ok(header) => {
                    match header.chunk {
                        chunk if chunk.is_staged() => write!(f, "chunk {} of", chunk.number)?,
                        chunk if chunk.is_sealing() => write!(f, "seal of {} chunks:", chunk.number)?,
                        _ => write!(f, "bundle")?,
                    }
                    for included in &header.included {
                        write!(f, " {} {}->{}", included.origin, included.from, included.to)?;
                    }
                    write!(f, ", cut at tick {} {}", header.tick, header.frontier)?;
                    header.sections.iter().try_for_each(|section| {
                        write!(
                            f,
                            ", {} of {}: {} rows",
                            section.object, section.origin, section.rows
                        )
                    })
                }
                Err(error) => write!(f, "bundle that is none: {error}"),
            },
            Self::Ack { frontier } => write!(f, "ack {frontier}"),
            Self::Lack { need, frontier } => {
                write!(f, "lack")?;
                need.iter()
                    .try_for_each(|(origin, epoch)| write!(f, " {origin}>={epoch}"))?;
                write!(f, " at {frontier}")
            }
            Self::Staged { chunks, is_full, .. } => {
                write!(
                    f,
                    "staged {chunks} chunks{}",
                    if *is_full { ", no room" } else { "" }
                )
            }
            Self::Heartbeat(heartbeat) => {
                write!(f, "heartbeat tick {} {}", heartbeat.tick, heartbeat.frontier)?;
                if heartbeat.processed != heartbeat.frontier {
                    write!(f, " processed {}", heartbeat.processed)?;
                }
                if heartbeat.echo.is_some() {
                    write!(f, " echo")
                } else {
                    Ok(())
                }
            }
        }
    }
}

fn shortened(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

fn to_bytes<T: Serialize>(body: &T) -> Bytes {
    Bytes::from(postcard::to_stdvec(body).expect("plain data serializes"))
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((body, [])) => Ok(body),
        Ok(_) => Err(corrupt("bytes follow it")),
        Err(error) => Err(corrupt(error.to_string())),
    }
}

fn corrupt(detail: impl Into<String>) -> ReplicationError {
    ReplicationError::corrupt("a message", detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frontier() -> Frontier {
        Frontier::from_iter([
            (OriginId::first(RegionId(1)), Epoch(7)),
            (OriginId::first(RegionId(2)), Epoch(3)),
        ])
    }

    fn examples() -> Vec<Message> {
        let origin = OriginId::first(RegionId(1));
        vec![
            Message::Hello(Box::new(Hello {
                session: 1,
                answers: Some(2),
                format: LINK_FORMAT,
                name: "us".into(),
                cluster: Some(ClusterId([7; 16])),
                origin: Some(origin),
                frontier: frontier(),
                chains: vec![(origin, Epoch(7), ChainHash([1; 16]))],
                standings: vec![Standing {
                    region: RegionId(2),
                    incarnation: 3,
                    dropped: true,
                }],
            })),
            Message::Refuse { reason: "no".into() },
            Message::Bundle(Bytes::from_static(b"opaque here")),
            Message::Ack { frontier: frontier() },
            Message::Lack {
                need: vec![(origin, Epoch(9))],
                frontier: frontier(),
            },
            Message::Heartbeat(Box::new(Heartbeat {
                tick: Tick(4),
                frontier: frontier(),
                processed: Frontier::new(),
                sent_ms: 12,
                echo: Some(Echo {
                    sent_ms: 3,
                    held_ms: 4,
                }),
                pressure: 50,
                direct: vec![origin],
                chains: vec![(origin, Epoch(7), ChainHash([1; 16]))],
            })),
            Message::Staged {
                stage: 7 << 40,
                chunks: 12,
                is_full: true,
            },
        ]
    }

    #[test]
    fn messages_come_back_as_they_were() {
        for message in examples() {
            assert_eq!(Message::decode(&message.encode()).expect("decodes"), message);
        }
    }

    #[test]
    fn every_damaged_bit_and_every_cut_is_noticed() {
        for message in examples() {
            let bytes = message.encode();
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    Message::decode(&Bytes::from(damaged)).is_err(),
                    "bit {bit} of {message}"
                );
            }
            for end in 0..bytes.len() {
                assert!(
                    Message::decode(&bytes.slice(..end)).is_err(),
                    "{message} cut at {end}"
                );
            }
        }
    }

    #[test]
    fn a_long_reason_is_shortened_at_a_character() {
        let reason = "ä".repeat(REASON_BYTES_MAX);
        let read = Message::decode(&Message::Refuse { reason }.encode()).expect("decodes");
        assert_eq!(
            read,
            Message::Refuse {
                reason: "ä".repeat(REASON_BYTES_MAX / 2)
            }
        );
    }

    proptest! {
        #[test]
        fn random_bodies_with_a_valid_checksum_never_panic(kind in 0u8..9, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = [MAGIC.as_slice(), &LINK_FORMAT.to_le_bytes(), &[0; 4], &[kind], &body].concat();
            let checksum = crc32fast::hash(&bytes[PREFIX_BYTES..]);
            bytes[6..10].copy_from_slice(&checksum.to_le_bytes());
            if let Ok(message) = Message::decode(&Bytes::from(bytes)) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }
    }
}
