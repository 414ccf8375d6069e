//! Relations by the names that a statement's options give them.
//!
//! `WITH (merge = 'p')` means a relation as the query calls it, but a tree over scans knows tables, and a table may stand
//! in it twice. So the scans below a relation of such a name are marked, in the name that is for EXPLAIN only, until the
//! tree is cut. A plan that leaves [`crate::split`] has no marks.

use crate::plan::{GlobalLeaf, LocalFragment, Node, Scan};

/// Stands before and behind the number of a mark; no identifier holds it.
const MARK: char = '\u{2}';

/// Marks the scans of a tree as parts of the relation with this number in the option's list.
pub fn mark(tree: Node<Scan>, number: usize) -> Node<Scan> {
    tree.map_leaves(&mut |mut scan| {
        scan.name = format!("{MARK}{number}{MARK}{}", scan.name);
        scan
    })
}

/// Whether a scan is part of the relation with this number.
pub fn is_part_of(scan: &Scan, number: usize) -> bool {
    let mut rest = scan.name.as_str();
    while let Some((mark, further)) = first_mark(rest) {
        if mark == number.to_string() {
            return true;
        }
        rest = further;
    }
    false
}

/// The scan without marks.
pub fn unmarked(mut scan: Scan) -> Scan {
    while let Some((_, rest)) = first_mark(&scan.name) {
        scan.name = rest.to_owned();
    }
    scan
}

/// The fragment without marks.
pub fn unmarked_fragment(fragment: LocalFragment) -> LocalFragment {
    LocalFragment {
        root: fragment.root.map_leaves(&mut unmarked),
        boundary: fragment.boundary,
    }
}

/// The global tree without marks.
pub fn unmarked_global(tree: Node<GlobalLeaf>) -> Node<GlobalLeaf> {
    tree.map_leaves(&mut |leaf| match leaf {
        GlobalLeaf::Scan(scan) => GlobalLeaf::Scan(unmarked(scan)),
        GlobalLeaf::Merge(fragment) => GlobalLeaf::Merge(fragment),
    })
}

/// The first mark of a name, and what follows it.
fn first_mark(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(MARK)?.split_once(MARK)
}
