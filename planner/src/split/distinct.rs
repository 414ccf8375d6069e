//! Aggregates of distinct values: first a group per key and value, then an aggregate of those groups.
//!
//! ```text
//!   aggregate by k: count(distinct x) filter f, sum(y)
//!
//!   ══▶  join on k (null is null)
//!        ├─ aggregate by k: count(x) filter m
//!        │    └─ aggregate by k, x: m = max(f)         m: whether any row of the value counts
//!        │         └─ project k, x, f, y
//!        └─ aggregate by k: sum(y)
//!             └─ project k, x, f, y
//! ```
//!
//! There is an inner aggregate for each distinct argument, and all of them read the same projection, so that local
//! fragments with equal roots compute it once. The pass is the last before the cut: pruning would make the
//! projections differ. Until then [`mark`] stands around the arguments.

use arrow_schema::DataType;

use super::prune::projection;
use crate::plan::{AggregateCall, AggregateFunction, Expr, JoinKind, Literal, Node, Scan};

/// The call that stands for DISTINCT around an argument.
const MARK: &str = "tributary_distinct";

/// An argument of an aggregate over its distinct values.
pub fn mark(argument: Expr, data_type: DataType) -> Expr {
    Expr::Call {
        function: MARK.to_owned(),
        arguments: vec![argument],
        returns: data_type,
    }
}

/// The tree with ordinary aggregates only.
pub fn expand(tree: Node<Scan>) -> Node<Scan> {
    let tree = tree.map_inputs(&mut |input| Ok::<_, std::convert::Infallible>(expand(input)));
    let Ok(tree) = tree;
    let Node::Aggregate {
        input,
        keys,
        aggregates,
    } = tree
    else {
        return tree;
    };
    let (below, expressions, types) = match *input {
        Node::Project {
            input,
            expressions,
            types,
        } if expressions.iter().any(|expr| marked(expr).is_some()) => (*input, expressions, types),
        other => {
            return Node::Aggregate {
                input: Box::new(other),
                keys,
                aggregates,
            };
        }
    };
    let distinct: Vec<bool> = expressions.iter().map(|expr| marked(expr).is_some()).collect();
    let plain = expressions
        .into_iter()
        .map(|expr| marked(&expr).cloned().unwrap_or(expr))
        .collect();
    let grouping = Grouping {
        input: projection(below, plain, types),
        keys,
    };
    grouping.joined(&aggregates, &distinct)
}

fn marked(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Call {
            function, arguments, ..
        } if function == MARK => arguments.first(),
        _ => None,
    }
}

/// What all parts of an aggregate have in common.
struct Grouping {
    input: Node<Scan>,
    keys: Vec<usize>,
}

/// An aggregate of some of the calls: keys, then these calls.
struct Part {
    node: Node<Scan>,
    calls: Vec<usize>,
}

impl Grouping {
    /// The parts side by side, with the columns of the aggregate that they stand for.
    fn joined(self, aggregates: &[AggregateCall], distinct: &[bool]) -> Node<Scan> {
        let is_distinct = |call: &AggregateCall| call.argument.filter(|&argument| distinct[argument]);
        let mut arguments: Vec<usize> = aggregates.iter().filter_map(is_distinct).collect();
        arguments.sort_unstable();
        arguments.dedup();
        let calls_of = |wanted: Option<usize>| {
            let calls = (0..aggregates.len()).filter(move |&call| is_distinct(&aggregates[call]) == wanted);
            calls.collect::<Vec<usize>>()
        };
        let mut parts: Vec<Part> = arguments
            .iter()
            .map(|&argument| self.distinct(argument, calls_of(Some(argument)), aggregates))
            .collect();
        let ordinary = calls_of(None);
        if !ordinary.is_empty() {
            let node = Node::Aggregate {
                input: Box::new(self.input.clone()),
                keys: self.keys.clone(),
                aggregates: ordinary.iter().map(|&call| aggregates[call].clone()).collect(),
            };
            parts.push(Part {
                node,
                calls: ordinary,
            });
        }
        self.side_by_side(parts, aggregates.len())
    }

    /// The calls over the distinct values of one argument.
    fn distinct(&self, argument: usize, calls: Vec<usize>, aggregates: &[AggregateCall]) -> Part {
        let mut flags: Vec<usize> = calls.iter().filter_map(|&call| aggregates[call].filter).collect();
        flags.sort_unstable();
        flags.dedup();
        let any = |&flag: &usize| AggregateCall {
            function: AggregateFunction::Max,
            argument: Some(flag),
            filter: None,
            input_type: DataType::Boolean,
            output_type: DataType::Boolean,
        };
        let value = self.keys.len();
        let per_value = Node::Aggregate {
            input: Box::new(self.input.clone()),
            keys: self.keys.iter().copied().chain([argument]).collect(),
            aggregates: flags.iter().map(any).collect(),
        };
        let over_values = calls.iter().map(|&call| {
            let call = aggregates[call].clone();
            let flag = |filter| {
                let position = flags.iter().position(|&flag| flag == filter);
                value + 1 + position.expect("every filter is among the flags")
            };
            AggregateCall {
                argument: Some(value),
                filter: call.filter.map(flag),
                ..call
            }
        });
        let node = Node::Aggregate {
            aggregates: over_values.collect(),
            input: Box::new(per_value),
            keys: (0..value).collect(),
        };
        Part { node, calls }
    }

    fn side_by_side(&self, parts: Vec<Part>, calls: usize) -> Node<Scan> {
        let keys = self.keys.len();
        let alone = parts.len() == 1;
        let mut positions = vec![0; calls];
        let mut joined: Option<Node<Scan>> = None;
        let (mut width, mut left_key) = (0, 0);
        for part in parts {
            for (index, &call) in part.calls.iter().enumerate() {
                positions[call] = width + keys + index;
            }
            let key = if keys == 0 { part.calls.len() } else { 0 };
            let own = if keys == 0 && !alone {
                with_constant(part.node)
            } else {
                part.node
            };
            let own_width = width_of(&own);
            joined = Some(match joined {
                None => {
                    left_key = key;
                    own
                }
                Some(left) => Node::Join {
                    kind: JoinKind::Inner,
                    left: Box::new(left),
                    right: Box::new(own),
                    on: match keys {
                        0 => vec![(left_key, key)],
                        _ => (0..keys).map(|key| (key, key)).collect(),
                    },
                    filter: None,
                    null_safe: keys > 0,
                },
            });
            width += own_width;
        }
        let node = joined.expect("an aggregate of distinct values has at least one part");
        let all = types_of(&node);
        let columns: Vec<usize> = (0..keys).chain(positions).collect();
        let types = columns.iter().map(|&column| all[column].clone()).collect();
        projection(node, columns.into_iter().map(Expr::Column).collect(), types)
    }
}

/// A constant key for parts that have one row each.
fn with_constant(node: Node<Scan>) -> Node<Scan> {
    let mut types = types_of(&node);
    let own = (0..types.len()).map(Expr::Column);
    let expressions = own.chain([Expr::Literal(Literal::int64(1))]).collect();
    types.push(DataType::Int64);
    Node::Project {
        input: Box::new(node),
        expressions,
        types,
    }
}

fn types_of(node: &Node<Scan>) -> Vec<DataType> {
    node.types(&|scan: &Scan| scan.types.clone())
}

fn width_of(node: &Node<Scan>) -> usize {
    node.width(&|scan: &Scan| scan.columns.len())
}
