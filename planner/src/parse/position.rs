//! From sqlparser's lines and columns to positions in the text.

use std::iter::Peekable;
use std::str::CharIndices;

use sqlparser::tokenizer::Location;

/// The position of a location of `text`: characters from 1, as PostgreSQL counts them. A location that is none
/// is the first character.
pub(super) fn position(text: &str, location: Location) -> usize {
    let lines_before = usize::try_from(location.line).unwrap_or(1).saturating_sub(1);
    let characters_before: usize = text
        .split_inclusive('\n')
        .take(lines_before)
        .map(|line| line.chars().count())
        .sum();
    characters_before + usize::try_from(location.column).unwrap_or(1).max(1)
}

/// Finds the byte offsets of locations that come in ascending order, in one pass over the text.
pub(super) struct Offsets<'a> {
    text: &'a str,
    start: usize,
    characters: Peekable<CharIndices<'a>>,
    at: Location,
}

impl<'a> Offsets<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self::starting_at(text, 0, Location { line: 1, column: 1 })
    }

    /// Starts at a location whose offset is known.
    pub(super) fn starting_at(text: &'a str, start: usize, at: Location) -> Self {
        Self {
            text,
            start,
            characters: text[start..].char_indices().peekable(),
            at,
        }
    }

    /// The offset of a location that is not before the last one asked for.
    pub(super) fn of(&mut self, location: Location) -> usize {
        while (self.at.line, self.at.column) < (location.line, location.column) {
            match self.characters.next() {
                Some((_, '\n')) => {
                    self.at = Location {
                        line: self.at.line + 1,
                        column: 1,
                    }
                }
                Some(_) => self.at.column += 1,
                None => break,
            }
        }
        self.characters
            .peek()
            .map_or(self.text.len(), |(offset, _)| self.start + *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_not_bytes() {
        let text = "é\nüx y";
        let at = |line, column| Location { line, column };
        assert_eq!(position(text, at(1, 1)), 1);
        assert_eq!(position(text, at(2, 2)), 4);
        assert_eq!(position(text, at(0, 0)), 1);
        let mut offsets = Offsets::new(text);
        assert_eq!(
            (offsets.of(at(1, 1)), offsets.of(at(2, 2)), offsets.of(at(2, 9))),
            (0, 5, text.len())
        );
    }
}
