//! A view's plan: local fragments, merge boundaries, the global fragment.

use arrow_schema::DataType;
use serde::{Deserialize, Serialize};
use tributary_storage::{Fingerprint, ObjectId};

use super::node::{AggregateCall, Node};

/// Where the rows of a relation are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Locality {
    /// Each row exists in exactly one region.
    Regional,
    /// Every region holds, eventually, the same rows.
    Global,
}

/// Reads some columns of a table or of another view's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// The table or view.
    pub object: ObjectId,
    /// Its name at planning time, for EXPLAIN only.
    pub name: String,
    /// Where its rows are.
    pub locality: Locality,
    /// The columns read, as indices into the object's columns, in output order.
    pub columns: Vec<usize>,
    /// The types of these columns.
    pub types: Vec<DataType>,
    /// Whether the relation only ever gains rows: nothing in it is updated or deleted.
    #[serde(default)]
    pub append_only: bool,
}

/// What the global fragment may read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GlobalLeaf {
    /// A GLOBAL table or another view.
    Scan(Scan),
    /// The merged rows of the local fragment with this number.
    Merge(usize),
}

/// The part of a plan that runs on one region's rows, and how its result is merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalFragment {
    /// The operators; at least one scan below is regional.
    pub root: Node<Scan>,
    /// What is shipped and how it is merged.
    pub boundary: Boundary,
}

/// A merge boundary: what crosses between regions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Boundary {
    /// A slot per (group, origin) that holds the aggregates' partial columns. The merged rows have the
    /// columns: keys, then one per aggregate. Without keys there is exactly one merged row, always.
    MergePartials {
        /// Columns of `root` that form the key.
        keys: Vec<usize>,
        /// The aggregates over columns of `root`. May be empty (DISTINCT).
        aggregates: Vec<AggregateCall>,
    },
    /// A slot per (row, origin) that holds the row's multiplicity. The merged rows have `root`'s columns.
    MergeRows,
    /// A slot per row of a fragment that only ever gains rows, keyed by the row's sequence number within
    /// origin and fragment. The merged rows have `root`'s columns.
    AppendRows,
}

/// A column of a view's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    pub data_type: DataType,
}

/// The plan of a materialized view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewPlan {
    /// Local fragments, by number.
    pub fragments: Vec<LocalFragment>,
    /// What every region computes from merged rows.
    pub global: Node<GlobalLeaf>,
    /// The result's columns: types equal those of `global`.
    pub columns: Vec<Column>,
}

impl ViewPlan {
    /// The objects the plan reads, each once, in ascending order.
    pub fn inputs(&self) -> Vec<ObjectId> {
        let mut objects = Vec::new();
        for fragment in &self.fragments {
            fragment
                .root
                .for_each_leaf(&mut |scan: &Scan| objects.push(scan.object));
        }
        self.global.for_each_leaf(&mut |leaf: &GlobalLeaf| {
            if let GlobalLeaf::Scan(scan) = leaf {
                objects.push(scan.object);
            }
        });
        objects.sort();
        objects.dedup();
        objects
    }

    /// The tables whose rows are merged because rows of different regions have to meet in a join: for each such join
    /// the names on both sides.
    pub fn merged_for_joins(&self) -> Vec<(String, String)> {
        let mut joins = Vec::new();
        self.global.for_each(&mut |node| {
            if let Node::Join { left, right, .. } = node {
                let (left, right) = (self.merged_rows(left), self.merged_rows(right));
                if let (Some(left), Some(right)) = (left, right) {
                    joins.push((left, right));
                }
            }
        });
        joins
    }

    /// The regional tables whose rows as they are meet in a part of the global fragment, if any.
    fn merged_rows(&self, node: &Node<GlobalLeaf>) -> Option<String> {
        let mut names: Vec<String> = Vec::new();
        node.for_each_leaf(&mut |leaf: &GlobalLeaf| {
            let GlobalLeaf::Merge(number) = leaf else { return };
            let fragment = &self.fragments[*number];
            if matches!(fragment.boundary, Boundary::MergePartials { .. }) {
                return;
            }
            fragment.root.for_each_leaf(&mut |scan: &Scan| {
                if scan.locality == Locality::Regional && !names.contains(&scan.name) {
                    names.push(scan.name.clone());
                }
            });
        });
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The types of the columns of `global`.
    pub fn global_types(&self) -> Vec<DataType> {
        self.global.types(&|leaf: &GlobalLeaf| match leaf {
            GlobalLeaf::Scan(scan) => scan.types.clone(),
            GlobalLeaf::Merge(fragment) => self.fragments[*fragment].merged_types(),
        })
    }

    /// A digest of the plan: equal plans, and only they, have equal fingerprints.
    pub fn fingerprint(&self) -> Fingerprint {
        let bytes = serde_json::to_vec(self).expect("a plan holds nothing that JSON cannot");
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
        Fingerprint(digest)
    }
}

impl<Leaf> Node<Leaf> {
    /// The inputs of this node, left to right.
    pub fn inputs(&self) -> Vec<&Node<Leaf>> {
        match self {
            Node::Leaf(_) => Vec::new(),
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::Aggregate { input, .. }
            | Node::Distinct { input }
            | Node::TopK { input, .. }
            | Node::Hop { input, .. }
            | Node::Session { input, .. } => vec![input],
            Node::Join { left, right, .. } => vec![left, right],
            Node::Union { inputs } => inputs.iter().collect(),
        }
    }

    /// The same tree with each leaf replaced by a tree.
    pub fn replace_leaves<Other>(&self, replacement: &mut impl FnMut(&Leaf) -> Node<Other>) -> Node<Other> {
        let mut boxed = |input: &Node<Leaf>| Box::new(input.replace_leaves(&mut *replacement));
        match self {
            Node::Leaf(leaf) => replacement(leaf),
            Node::Filter { input, predicate } => Node::Filter {
                input: boxed(input),
                predicate: predicate.clone(),
            },
            Node::Project {
                input,
                expressions,
                types,
            } => Node::Project {
                input: boxed(input),
                expressions: expressions.clone(),
                types: types.clone(),
            },
            Node::Join {
                kind,
                left,
                right,
                on,
                filter,
                null_safe,
            } => Node::Join {
                kind: *kind,
                left: boxed(left),
                right: boxed(right),
                on: on.clone(),
                filter: filter.clone(),
                null_safe: *null_safe,
            },
            Node::Union { inputs } => Node::Union {
                inputs: inputs.iter().map(|input| *boxed(input)).collect(),
            },
            Node::Aggregate {
                input,
                keys,
                aggregates,
            } => Node::Aggregate {
                input: boxed(input),
                keys: keys.clone(),
                aggregates: aggregates.clone(),
            },
            Node::Distinct { input } => Node::Distinct { input: boxed(input) },
            Node::TopK {
                input,
                partition,
                keys,
                skip,
                fetch,
                rank,
            } => Node::TopK {
                input: boxed(input),
                partition: partition.clone(),
                keys: keys.clone(),
                skip: *skip,
                fetch: *fetch,
                rank: *rank,
            },
            Node::Hop {
                input,
                column,
                slide_us,
                size_us,
            } => Node::Hop {
                input: boxed(input),
                column: *column,
                slide_us: *slide_us,
                size_us: *size_us,
            },
            Node::Session {
                input,
                partition,
                column,
                gap_us,
            } => Node::Session {
                input: boxed(input),
                partition: partition.clone(),
                column: *column,
                gap_us: *gap_us,
            },
        }
    }

    /// Calls `visit` for each node, inputs after what reads them.
    pub fn for_each(&self, visit: &mut impl FnMut(&Node<Leaf>)) {
        visit(self);
        for input in self.inputs() {
            input.for_each(visit);
        }
    }

    /// Calls `visit` for each leaf, left to right.
    pub fn for_each_leaf(&self, visit: &mut impl FnMut(&Leaf)) {
        if let Node::Leaf(leaf) = self {
            visit(leaf);
        }
        for input in self.inputs() {
            input.for_each_leaf(visit);
        }
    }

    /// The types of the output columns, given those of the leaves.
    pub fn types(&self, leaf_types: &impl Fn(&Leaf) -> Vec<DataType>) -> Vec<DataType> {
        match self {
            Node::Leaf(leaf) => leaf_types(leaf),
            Node::Filter { input, .. } | Node::Distinct { input } => input.types(leaf_types),
            Node::TopK { input, rank, .. } => {
                let mut types = input.types(leaf_types);
                types.extend(rank.then_some(DataType::Int64));
                types
            }
            Node::Hop { input, column, .. } | Node::Session { input, column, .. } => {
                let mut types = input.types(leaf_types);
                let time = types[*column].clone();
                types.extend([time.clone(), time]);
                types
            }
            Node::Project { types, .. } => types.clone(),
            Node::Join { left, right, .. } => {
                let mut types = left.types(leaf_types);
                types.extend(right.types(leaf_types));
                types
            }
            Node::Union { inputs } => inputs[0].types(leaf_types),
            Node::Aggregate {
                input,
                keys,
                aggregates,
            } => aggregated_types(&input.types(leaf_types), keys, aggregates),
        }
    }
}

impl Node<Scan> {
    /// Whether the tree's rows are never retracted and come in the order in which the log brings those of its one
    /// relation. A join of two such relations is not: in which order its pairs appear depends on how many records are
    /// stepped together, and a replay may step fewer.
    pub fn appends_in_order(&self) -> bool {
        match self {
            Node::Leaf(scan) => scan.append_only,
            Node::Filter { input, .. } | Node::Project { input, .. } | Node::Hop { input, .. } => {
                input.appends_in_order()
            }
            _ => false,
        }
    }
}

impl LocalFragment {
    /// The types of the merged rows.
    pub fn merged_types(&self) -> Vec<DataType> {
        let types = self.root.types(&|scan: &Scan| scan.types.clone());
        match &self.boundary {
            Boundary::MergePartials { keys, aggregates } => aggregated_types(&types, keys, aggregates),
            Boundary::MergeRows | Boundary::AppendRows => types,
        }
    }
}

/// The types of grouped rows: keys, then results.
fn aggregated_types(input: &[DataType], keys: &[usize], aggregates: &[AggregateCall]) -> Vec<DataType> {
    let keys = keys.iter().map(|&key| input[key].clone());
    keys.chain(aggregates.iter().map(|call| call.output_type.clone()))
        .collect()
}
