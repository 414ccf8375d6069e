//! Which commits that carry a token are in: a commit that comes again, because its answer was lost, is answered and not
//! carried out again.
//!
//! The newest [`TOKENS_MAX`] are remembered. Left out: repeats that come later than so many others.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tributary_storage::Position;

/// The most tokens that are remembered; beyond it the oldest are forgotten.
pub const TOKENS_MAX: usize = 65_536;

/// What identifies a commit to those who may send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitToken {
    /// Drawn by who sends it.
    pub id: [u8; 16],
    /// How many rows its statement has changed, to be told again.
    pub rows: u64,
}

/// The tokens that are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(CommitToken, Position)>", into = "Vec<(CommitToken, Position)>")]
pub struct Tokens {
    known: BTreeMap<[u8; 16], (Position, u64)>,
    order: VecDeque<[u8; 16]>,
}

impl Tokens {
    /// Remembers that a commit is in.
    pub fn insert(&mut self, token: CommitToken, position: Position) {
        if self.known.insert(token.id, (position, token.rows)).is_none() {
            self.order.push_back(token.id);
        }
        while self.order.len() > TOKENS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Where a commit is, and how many rows it changed.
    pub fn get(&self, id: &[u8; 16]) -> Option<(Position, u64)> {
        self.known.get(id).copied()
    }
}

impl From<Vec<(CommitToken, Position)>> for Tokens {
    fn from(list: Vec<(CommitToken, Position)>) -> Self {
        let mut tokens = Self::default();
        for (token, position) in list {
            tokens.insert(token, position);
        }
        tokens
    }
}

impl From<Tokens> for Vec<(CommitToken, Position)> {
    fn from(tokens: Tokens) -> Self {
        let known = |id: &[u8; 16]| {
            let (position, rows) = tokens.known.get(id)?;
            Some((CommitToken { id: *id, rows: *rows }, *position))
        };
        tokens.order.iter().filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_the_others_survive_being_written() {
        let mut tokens = Tokens::default();
        let id = |number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number as u64).to_le_bytes());
            id
        };
        for number in 0..TOKENS_MAX + 2 {
            let token = CommitToken {
                id: id(number),
                rows: number as u64,
            };
            tokens.insert(token, Position(number as u64 + 1));
        }
        assert_eq!(tokens.get(&id(1)), None);
        assert_eq!(tokens.get(&id(2)), Some((Position(3), 2)));
        let bytes = postcard::to_stdvec(&tokens).expect("plain data");
        assert_eq!(postcard::from_bytes::<Tokens>(&bytes), Ok(tokens));
    }
}
