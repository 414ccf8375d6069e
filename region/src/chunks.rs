//! A range that is too large for one bundle, on its way to one peer in chunks.
//!
//! ```text
//!   snapshot ─▶ walk: catalog │ rows of tables │ slots of fragments ─▶ chunk 0, 1, 2 … ─▶ link
//! ```
//!
//! What is walked is what was there at the beginning; the sealing bundle brings what changed since. Neither the range
//! nor its chunks are ever in memory as a whole: only those that are not acknowledged are kept.

use std::collections::{BTreeMap, VecDeque};

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use bytes::Bytes;
use tributary_replication::{Bundle, Chunk, Frontier, Included, Section, SectionObject, Walk};
use tributary_storage::{Fingerprint, OriginId, Position};

/// Rows that a walk reads at once.
pub(crate) const PORTION_ROWS: usize = 4_096;

/// How often the maximum of a bundle doubles while a stage cannot be sealed: with the defaults to half a message.
const BUNDLE_DOUBLINGS_MAX: u32 = 2;

/// Portions that are read for one chunk, however few of their rows are wanted.
const PORTIONS_MAX: usize = 64;

/// See the module's documentation.
pub(crate) struct Chunks {
    /// The stage that they belong to.
    pub(crate) stage: u64,
    /// The state that is walked.
    pub(crate) position: Position,
    /// What each chunk says of itself, without rows.
    head: Bundle,
    first_sections: Vec<Section>,
    parts: VecDeque<Part>,
    /// How often the stage was walked on, because too much had changed to seal it.
    walks: u32,
    next: u32,
    kept: BTreeMap<u32, Bytes>,
}

/// The walk over one object's values of one origin.
pub(crate) struct Part {
    pub(crate) object: SectionObject,
    pub(crate) origin: OriginId,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) walk: Walk,
    /// Rows that found no room in the last chunk.
    left: Option<RecordBatch>,
}

impl Part {
    pub(crate) fn new(object: SectionObject, origin: OriginId, fingerprint: Fingerprint, walk: Walk) -> Self {
        Self {
            object,
            origin,
            fingerprint,
            walk,
            left: None,
        }
    }
}

/// What reading on has brought.
pub(crate) enum Next {
    /// The chunk.
    Chunk(Bytes),
    /// Nothing yet.
    Working,
    /// There are no more.
    End,
}

impl Chunks {
    /// Chunks of `head`'s origins as of `position`; `head.sections` go with the first one.
    pub(crate) fn new(position: Position, mut head: Bundle, parts: VecDeque<Part>) -> Self {
        Self {
            stage: 0,
            position,
            first_sections: std::mem::take(&mut head.sections),
            head,
            parts,
            walks: 0,
            next: 0,
            kept: BTreeMap::new(),
        }
    }

    /// Names the stage. When `earlier` is an earlier part of it, the numbers of its chunks go on.
    pub(crate) fn begin(&mut self, stage: u64, earlier: Option<&Chunks>) {
        self.stage = stage;
        if let Some(earlier) = earlier.filter(|earlier| earlier.stage == stage) {
            (self.next, self.walks) = (earlier.next, earlier.walks + 1);
        }
    }

    /// How much may go in one bundle. The more often a stage was walked on the more: where much changes all the time, it
    /// would never be sealed.
    pub(crate) fn bundle_bytes_max(&self, bytes_max: usize) -> usize {
        bytes_max << self.walks.min(BUNDLE_DOUBLINGS_MAX)
    }

    /// The origins, and how far the chunks bring each.
    pub(crate) fn included(&self) -> &[Included] {
        &self.head.included
    }

    /// The frontier of the state that is walked.
    pub(crate) fn frontier(&self) -> &Frontier {
        &self.head.frontier
    }

    /// The chunks before this one are at the peer.
    pub(crate) fn acknowledged(&mut self, chunks: u32) {
        self.kept = self.kept.split_off(&chunks);
    }

    /// The chunk of this number: one that is kept, or the next one, with about `bytes_max` bytes of rows, of which
    /// `may_leave` says what may be in it.
    ///
    /// # Errors
    /// Why a part of it must not leave. What was read for it is lost then: the walk has to begin anew.
    pub(crate) fn chunk(
        &mut self,
        number: u32,
        bytes_max: usize,
        may_leave: impl Fn(&Section) -> Result<bool, String>,
    ) -> Result<Next, String> {
        if let Some(bytes) = self.kept.get(&number) {
            return Ok(Next::Chunk(bytes.clone()));
        }
        assert_eq!(number, self.next, "chunks are kept until they are acknowledged");
        let mut sections = Vec::new();
        for section in self.sections(bytes_max) {
            if may_leave(&section)? {
                sections.push(section);
            }
        }
        if sections.is_empty() {
            return match self.parts.is_empty() {
                true => Ok(Next::End),
                false => Ok(Next::Working),
            };
        }
        let bundle = Bundle {
            chunk: Chunk {
                stage: self.stage,
                number,
                last: false,
            },
            sections,
            ..self.head.clone()
        };
        let bytes = bundle.encode();
        self.kept.insert(number, bytes.clone());
        self.next += 1;
        Ok(Next::Chunk(bytes))
    }

    fn sections(&mut self, bytes_max: usize) -> Vec<Section> {
        let mut sections = std::mem::take(&mut self.first_sections);
        let (mut gathered, mut bytes) = (Vec::new(), 0);
        for _ in 0..PORTIONS_MAX {
            let Some(part) = self.parts.front_mut() else { break };
            let Some(rows) = part.left.take().or_else(|| part.walk.next()) else {
                sections.extend(part.section(std::mem::take(&mut gathered)));
                self.parts.pop_front();
                continue;
            };
            if rows.num_rows() == 0 {
                continue;
            }
            let (taken, left) = split(rows, bytes_max.saturating_sub(bytes).max(1));
            bytes += bytes_of(&taken);
            gathered.push(taken);
            part.left = left;
            if part.left.is_some() || bytes >= bytes_max {
                break;
            }
        }
        if let Some(part) = self.parts.front() {
            sections.extend(part.section(gathered));
        }
        sections
    }
}

impl Part {
    fn section(&self, gathered: Vec<RecordBatch>) -> Option<Section> {
        let schema = gathered.first()?.schema();
        Some(Section {
            object: self.object.clone(),
            origin: self.origin,
            fingerprint: self.fingerprint,
            rows: concat_batches(&schema, &gathered).expect("portions of one walk have one schema"),
        })
    }
}

/// As many rows as take `bytes_max` bytes, at least one, and the rest.
fn split(rows: RecordBatch, bytes_max: usize) -> (RecordBatch, Option<RecordBatch>) {
    let (count, bytes) = (rows.num_rows(), bytes_of(&rows));
    if bytes <= bytes_max || count == 1 {
        return (rows, None);
    }
    let taken = (count.saturating_mul(bytes_max) / bytes).clamp(1, count - 1);
    (rows.slice(0, taken), Some(rows.slice(taken, count - taken)))
}

/// The bytes that rows need, not those of what they were cut from.
pub(crate) fn bytes_of(rows: &RecordBatch) -> usize {
    let bytes = |column: &arrow::array::ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    rows.columns().iter().map(bytes).sum()
}
