//! Random plans: fragments over regional and global tables, boundaries of both kinds, a global tree above.

use arrow::datatypes::DataType;
use tributary_planner::plan::{
    AggregateCall, AggregateFunction, BinaryOp, Boundary, Column, Expr, GlobalLeaf, JoinKind, Literal,
    LocalFragment, Locality, Node, Scan, SortKey, ViewPlan,
};
use tributary_storage::ObjectId;

/// A small generator of choices; the seed comes from proptest.
pub struct Choices(u64);

impl Choices {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound` (SplitMix64).
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Tables 0, 1 and 4 are regional, 2, 3 and 5 are global, rows of 4 and 5 only come; all have these columns.
pub const TABLES: u32 = 6;

pub fn is_global(table: u32) -> bool {
    matches!(table, 2 | 3 | 5)
}

pub fn is_append_only(table: u32) -> bool {
    table >= 4
}

pub fn table_types() -> Vec<DataType> {
    vec![
        DataType::Int64,
        DataType::Int64,
        DataType::Float64,
        DataType::Utf8,
    ]
}

/// A random view.
pub fn plan(choices: &mut Choices) -> ViewPlan {
    let fragments: Vec<LocalFragment> = (0..choices.below(3)).map(|_| fragment(choices)).collect();
    let mut leaves: Vec<Node<GlobalLeaf>> = (0..fragments.len())
        .map(|n| Node::Leaf(GlobalLeaf::Merge(n)))
        .collect();
    if leaves.is_empty() || choices.one_in(3) {
        leaves.push(Node::Leaf(GlobalLeaf::Scan(scan(choices, true))));
    }
    let merged: Vec<Vec<DataType>> = fragments.iter().map(LocalFragment::merged_types).collect();
    let types = |leaf: &GlobalLeaf| match leaf {
        GlobalLeaf::Scan(scan) => scan.types.clone(),
        GlobalLeaf::Merge(number) => merged[*number].clone(),
    };
    let mut global = leaves.remove(0);
    // The same top-k once more, as the split of a top-k over regional rows has it.
    if let Some(Node::TopK {
        partition,
        keys,
        fetch,
        ..
    }) = fragments.first().map(|first| &first.root)
        && fragments[0].boundary == Boundary::MergeRows
        && choices.one_in(2)
    {
        global = Node::TopK {
            input: Box::new(global),
            partition: partition.clone(),
            keys: keys.clone(),
            skip: 0,
            fetch: *fetch,
            rank: choices.one_in(2),
        };
    }
    for leaf in leaves {
        global = join(choices, global, leaf, &types);
    }
    for _ in 0..choices.below(4) {
        global = operator(choices, global, &types, true);
    }
    let columns = global.types(&types).into_iter().enumerate();
    let columns = columns
        .map(|(i, data_type)| Column {
            name: format!("r{i}"),
            data_type,
        })
        .collect();
    ViewPlan {
        fragments,
        global,
        columns,
    }
}

/// One operator over global tables, by number.
pub fn single(choices: &mut Choices, number: usize) -> ViewPlan {
    let types = |leaf: &GlobalLeaf| match leaf {
        GlobalLeaf::Scan(scan) => scan.types.clone(),
        GlobalLeaf::Merge(_) => Vec::new(),
    };
    let mut input = || Node::Leaf(GlobalLeaf::Scan(scan(choices, true)));
    let (left, right) = (input(), input());
    let global = match number {
        0..SINGLES_UNARY => nth_operator(choices, left, &types, number),
        SINGLES_UNARY => Node::Union {
            inputs: vec![left, right],
        },
        _ => {
            let kind = if number.is_multiple_of(2) {
                JoinKind::Inner
            } else {
                JoinKind::Left
            };
            let filter = if number < SINGLES_UNARY + 3 {
                None
            } else {
                condition(choices, &[table_types(), table_types()].concat())
            };
            let key = choices.below(2);
            let on = vec![(key, choices.below(2))];
            Node::Join {
                kind,
                left: Box::new(left),
                right: Box::new(right),
                on,
                filter,
                null_safe: number.is_multiple_of(3),
            }
        }
    };
    let columns = global.types(&types).into_iter().enumerate();
    let columns = columns
        .map(|(i, data_type)| Column {
            name: format!("r{i}"),
            data_type,
        })
        .collect();
    ViewPlan {
        fragments: vec![],
        global,
        columns,
    }
}

/// How many single-operator plans there are.
pub const SINGLES: usize = SINGLES_UNARY + 5;
const SINGLES_UNARY: usize = 6;

/// `SELECT a, count(*) FROM t0 GROUP BY a`: the plainest view in which counting twice shows.
pub fn counts_per_key() -> ViewPlan {
    let scan = Scan {
        object: ObjectId(0),
        name: "t0".to_string(),
        locality: Locality::Regional,
        columns: vec![0],
        types: vec![DataType::Int64],
        append_only: false,
    };
    let count = AggregateCall {
        function: AggregateFunction::Count,
        argument: None,
        filter: None,
        input_type: DataType::Null,
        output_type: DataType::Int64,
    };
    let boundary = Boundary::MergePartials {
        keys: vec![0],
        aggregates: vec![count],
    };
    let columns = ["a", "count"].map(|name| Column {
        name: name.to_string(),
        data_type: DataType::Int64,
    });
    ViewPlan {
        fragments: vec![LocalFragment {
            root: Node::Leaf(scan),
            boundary,
        }],
        global: Node::Leaf(GlobalLeaf::Merge(0)),
        columns: columns.to_vec(),
    }
}

fn fragment(choices: &mut Choices) -> LocalFragment {
    let types = |scan: &Scan| scan.types.clone();
    let mut root = Node::Leaf(scan(choices, false));
    if choices.one_in(3) {
        root = Node::Union {
            inputs: vec![root, Node::Leaf(scan(choices, false))],
        };
    }
    if choices.one_in(2) {
        let right = Node::Leaf(scan(choices, true));
        root = join(choices, root, right, &types);
    }
    for _ in 0..choices.below(3) {
        root = operator(choices, root, &types, false);
    }
    let boundary = if is_linear(&root) && choices.one_in(2) {
        Boundary::AppendRows
    } else if choices.one_in(3) {
        Boundary::MergeRows
    } else {
        let (input, keys, aggregates) = grouping(choices, root, &types);
        root = input;
        Boundary::MergePartials { keys, aggregates }
    };
    LocalFragment { root, boundary }
}

/// Whether rows of a fragment only come, in the order of its one table.
fn is_linear(node: &Node<Scan>) -> bool {
    match node {
        Node::Leaf(scan) => scan.append_only,
        Node::Filter { input, .. } | Node::Project { input, .. } => is_linear(input),
        _ => false,
    }
}

fn scan(choices: &mut Choices, global: bool) -> Scan {
    let table = match (choices.below(3), global) {
        (2, false) => 4,
        (2, true) => 5,
        (number, false) => number as u32,
        (number, true) => number as u32 + 2,
    };
    Scan {
        object: ObjectId(table),
        name: format!("t{table}"),
        locality: if global {
            Locality::Global
        } else {
            Locality::Regional
        },
        columns: vec![0, 1, 2, 3],
        types: table_types(),
        append_only: is_append_only(table),
    }
}

fn column_of(choices: &mut Choices, types: &[DataType], wanted: &DataType) -> Option<usize> {
    let found: Vec<usize> = (0..types.len()).filter(|i| types[*i] == *wanted).collect();
    (!found.is_empty()).then(|| found[choices.below(found.len())])
}

fn join<Leaf>(
    choices: &mut Choices,
    left: Node<Leaf>,
    right: Node<Leaf>,
    leaf: &impl Fn(&Leaf) -> Vec<DataType>,
) -> Node<Leaf> {
    let (left_types, right_types) = (left.types(leaf), right.types(leaf));
    // A cross join by a constant where the sides have no column of one type in common.
    let common = [DataType::Int64, DataType::Utf8, DataType::Float64]
        .into_iter()
        .find_map(|data_type| {
            let pair = (
                column_of(choices, &left_types, &data_type),
                column_of(choices, &right_types, &data_type),
            );
            match pair {
                (Some(l), Some(r)) => Some((l, r)),
                _ => None,
            }
        });
    let kind = if choices.one_in(2) {
        JoinKind::Left
    } else {
        JoinKind::Inner
    };
    let Some(pair) = common else {
        let (left, left_key) = with_constant(left, &left_types);
        let (right, right_key) = with_constant(right, &right_types);
        let (left, right) = (Box::new(left), Box::new(right));
        return Node::Join {
            kind,
            left,
            right,
            on: vec![(left_key, right_key)],
            filter: None,
            null_safe: false,
        };
    };
    let types = [left_types, right_types].concat();
    let filter = if choices.one_in(3) {
        condition(choices, &types)
    } else {
        None
    };
    Node::Join {
        kind,
        left: Box::new(left),
        right: Box::new(right),
        on: vec![pair],
        filter,
        null_safe: choices.one_in(3),
    }
}

fn with_constant<Leaf>(input: Node<Leaf>, types: &[DataType]) -> (Node<Leaf>, usize) {
    let mut expressions: Vec<Expr> = (0..types.len()).map(Expr::Column).collect();
    expressions.push(Expr::Literal(Literal::int64(1)));
    let types = [types, &[DataType::Int64]].concat();
    let key = types.len() - 1;
    (
        Node::Project {
            input: Box::new(input),
            expressions,
            types,
        },
        key,
    )
}

/// `a < b`, `a = b`, `a / b = c`, `a < 2` or `a IS NULL` over integer columns; the third may fail.
fn condition(choices: &mut Choices, types: &[DataType]) -> Option<Expr> {
    let mut integer = || column_of(choices, types, &DataType::Int64).map(Expr::Column);
    let (a, b, c) = (integer()?, integer()?, integer()?);
    Some(match choices.below(5) {
        0 => binary(BinaryOp::Less, a, b),
        1 => binary(BinaryOp::Equal, a, b),
        2 => binary(BinaryOp::Equal, binary(BinaryOp::Divide, a, b), c),
        3 => binary(BinaryOp::Less, a, Expr::Literal(Literal::int64(2))),
        _ => Expr::IsNull(Box::new(a)),
    })
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn operator<Leaf>(
    choices: &mut Choices,
    input: Node<Leaf>,
    leaf: &impl Fn(&Leaf) -> Vec<DataType>,
    global: bool,
) -> Node<Leaf> {
    let number = choices.below(if global { SINGLES_UNARY } else { 3 });
    nth_operator(choices, input, leaf, number)
}

/// An operator over `input`: one of six kinds, the first three of which may stand in a local fragment.
fn nth_operator<Leaf>(
    choices: &mut Choices,
    input: Node<Leaf>,
    leaf: &impl Fn(&Leaf) -> Vec<DataType>,
    number: usize,
) -> Node<Leaf> {
    let types = input.types(leaf);
    match number {
        0 => match condition(choices, &types) {
            Some(predicate) => Node::Filter {
                input: Box::new(input),
                predicate,
            },
            None => input,
        },
        1 => project(choices, input, &types),
        2 => {
            let partition = (0..choices.below(3))
                .map(|_| choices.below(types.len()))
                .collect();
            Node::TopK {
                input: Box::new(input),
                partition,
                keys: sort_keys(choices, &types),
                skip: choices.below(3),
                fetch: choices.below(6),
                rank: choices.one_in(3),
            }
        }
        3 => Node::Distinct {
            input: Box::new(input),
        },
        4 => {
            let (input, keys, aggregates) = grouping(choices, input, leaf);
            Node::Aggregate {
                input: Box::new(input),
                keys,
                aggregates,
            }
        }
        _ => {
            let keys: Vec<usize> = vec![choices.below(types.len())];
            Node::Aggregate {
                input: Box::new(input),
                keys,
                aggregates: Vec::new(),
            }
        }
    }
}

fn sort_keys(choices: &mut Choices, types: &[DataType]) -> Vec<SortKey> {
    let mut keys: Vec<SortKey> = Vec::new();
    for _ in 0..choices.below(3) {
        let (column, descending, nulls_first) =
            (choices.below(types.len()), choices.one_in(2), choices.one_in(2));
        keys.push(SortKey {
            column,
            descending,
            nulls_first,
        });
    }
    keys
}

fn project<Leaf>(choices: &mut Choices, input: Node<Leaf>, types: &[DataType]) -> Node<Leaf> {
    // All columns, turned by some places, so that nothing disappears from sight but much moves.
    let turn = choices.below(types.len());
    let mut expressions: Vec<Expr> = (0..types.len())
        .map(|i| Expr::Column((i + turn) % types.len()))
        .collect();
    let mut projected: Vec<DataType> = (0..types.len())
        .map(|i| types[(i + turn) % types.len()].clone())
        .collect();
    if let (Some(a), Some(b)) = (
        column_of(choices, types, &DataType::Int64),
        column_of(choices, types, &DataType::Int64),
    ) {
        let op = if choices.one_in(3) {
            BinaryOp::Divide
        } else {
            BinaryOp::Add
        };
        expressions.push(binary(op, Expr::Column(a), Expr::Column(b)));
        projected.push(DataType::Int64);
    }
    Node::Project {
        input: Box::new(input),
        expressions,
        types: projected,
    }
}

/// Keys and aggregates over `input`, to which a boolean column is appended when there can be one.
fn grouping<Leaf>(
    choices: &mut Choices,
    input: Node<Leaf>,
    leaf: &impl Fn(&Leaf) -> Vec<DataType>,
) -> (Node<Leaf>, Vec<usize>, Vec<AggregateCall>) {
    let mut types = input.types(leaf);
    let keys: Vec<usize> = (0..choices.below(3))
        .map(|_| choices.below(types.len()))
        .collect();
    let mut input = input;
    let mut truth = None;
    if let Some(column) = column_of(choices, &types, &DataType::Int64) {
        let mut expressions: Vec<Expr> = (0..types.len()).map(Expr::Column).collect();
        expressions.push(binary(
            BinaryOp::Less,
            Expr::Column(column),
            Expr::Literal(Literal::int64(1)),
        ));
        types.push(DataType::Boolean);
        truth = Some(types.len() - 1);
        input = Node::Project {
            input: Box::new(input),
            expressions,
            types: types.clone(),
        };
    }
    let count = if keys.is_empty() {
        1 + choices.below(3)
    } else {
        choices.below(4)
    };
    let aggregates = (0..count).map(|_| call(choices, &types, truth)).collect();
    (input, keys, aggregates)
}

fn call(choices: &mut Choices, types: &[DataType], truth: Option<usize>) -> AggregateCall {
    use AggregateFunction::*;
    let filter = truth.filter(|_| choices.one_in(3));
    let argument = choices.below(types.len());
    let input_type = types[argument].clone();
    let (function, output_type) = match (choices.below(6), &input_type) {
        (0, DataType::Int64) => (Sum, DataType::Decimal128(38, 0)),
        (0 | 1, DataType::Float64) => (Sum, DataType::Float64),
        (1, DataType::Int64) => (Avg, DataType::Decimal128(38, 16)),
        (0 | 1, DataType::Boolean) => (BoolAnd, DataType::Boolean),
        (2, DataType::Boolean) => (BoolOr, DataType::Boolean),
        (2 | 3, other) => (Min, other.clone()),
        (4, other) => (Max, other.clone()),
        _ => (Count, DataType::Int64),
    };
    if function == Count && choices.one_in(2) {
        let input_type = DataType::Null;
        return AggregateCall {
            function,
            argument: None,
            filter,
            input_type,
            output_type,
        };
    }
    AggregateCall {
        function,
        argument: Some(argument),
        filter,
        input_type,
        output_type,
    }
}
