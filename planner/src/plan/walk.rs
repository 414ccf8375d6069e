//! Walking and rewriting expressions.

use super::expr::{BinaryOp, Expr};
use super::node::Node;

impl BinaryOp {
    /// The operator as written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Subtract => "-",
            BinaryOp::Multiply => "*",
            BinaryOp::Divide => "/",
            BinaryOp::Modulo => "%",
            BinaryOp::Equal => "=",
            BinaryOp::NotEqual => "<>",
            BinaryOp::Less => "<",
            BinaryOp::LessOrEqual => "<=",
            BinaryOp::Greater => ">",
            BinaryOp::GreaterOrEqual => ">=",
            BinaryOp::And => "AND",
            BinaryOp::Or => "OR",
            BinaryOp::IsDistinctFrom => "IS DISTINCT FROM",
            BinaryOp::IsNotDistinctFrom => "IS NOT DISTINCT FROM",
            BinaryOp::Concat => "||",
        }
    }
}

impl Expr {
    /// The direct operands.
    pub fn operands(&self) -> Vec<&Expr> {
        match self {
            Expr::Column(_) | Expr::Literal(_) => Vec::new(),
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::Not(input) | Expr::Negate(input) | Expr::IsNull(input) | Expr::Cast { input, .. } => {
                vec![input]
            }
            Expr::Case { branches, otherwise } => {
                let branches = branches
                    .iter()
                    .flat_map(|(condition, result)| [condition, result]);
                branches.chain(otherwise.as_deref()).collect()
            }
            Expr::Like { input, pattern, .. } => vec![input, pattern],
            Expr::InList { input, list, .. } => std::iter::once(&**input).chain(list).collect(),
            Expr::Call { arguments, .. } => arguments.iter().collect(),
        }
    }

    /// Calls `visit` for each column read, in the order of the text, as often as it occurs.
    pub fn for_each_column(&self, visit: &mut impl FnMut(usize)) {
        if let Expr::Column(column) = self {
            visit(*column);
        }
        for operand in self.operands() {
            operand.for_each_column(visit);
        }
    }

    /// Whether every column read satisfies the predicate.
    pub fn columns_all(&self, predicate: impl Fn(usize) -> bool) -> bool {
        let mut all = true;
        self.for_each_column(&mut |column| all &= predicate(column));
        all
    }

    /// The same expression with each column replaced by an expression.
    pub fn substitute(&self, replacement: &dyn Fn(usize) -> Expr) -> Expr {
        let boxed = |input: &Expr| Box::new(input.substitute(replacement));
        match self {
            Expr::Column(column) => replacement(*column),
            Expr::Literal(literal) => Expr::Literal(literal.clone()),
            Expr::Binary { op, left, right } => Expr::Binary {
                op: *op,
                left: boxed(left),
                right: boxed(right),
            },
            Expr::Not(input) => Expr::Not(boxed(input)),
            Expr::Negate(input) => Expr::Negate(boxed(input)),
            Expr::IsNull(input) => Expr::IsNull(boxed(input)),
            Expr::Cast { input, to } => Expr::Cast {
                input: boxed(input),
                to: to.clone(),
            },
            Expr::Case { branches, otherwise } => Expr::Case {
                branches: branches
                    .iter()
                    .map(|(condition, result)| {
                        (condition.substitute(replacement), result.substitute(replacement))
                    })
                    .collect(),
                otherwise: otherwise.as_deref().map(boxed),
            },
            Expr::Like {
                input,
                pattern,
                negated,
                case_insensitive,
            } => Expr::Like {
                input: boxed(input),
                pattern: boxed(pattern),
                negated: *negated,
                case_insensitive: *case_insensitive,
            },
            Expr::InList { input, list, negated } => Expr::InList {
                input: boxed(input),
                list: list.iter().map(|item| item.substitute(replacement)).collect(),
                negated: *negated,
            },
            Expr::Call {
                function,
                arguments,
                returns,
            } => Expr::Call {
                function: function.clone(),
                arguments: arguments
                    .iter()
                    .map(|argument| argument.substitute(replacement))
                    .collect(),
                returns: returns.clone(),
            },
        }
    }

    /// The same expression over other columns.
    pub fn map_columns(&self, position: &dyn Fn(usize) -> usize) -> Expr {
        self.substitute(&|column| Expr::Column(position(column)))
    }
}

impl<Leaf> Node<Leaf> {
    /// The number of output columns, given those of the leaves.
    pub fn width(&self, leaf_width: &impl Fn(&Leaf) -> usize) -> usize {
        match self {
            Node::Leaf(leaf) => leaf_width(leaf),
            Node::Filter { input, .. } | Node::Distinct { input } => input.width(leaf_width),
            Node::TopK { input, rank, .. } => input.width(leaf_width) + usize::from(*rank),
            Node::Hop { input, .. } | Node::Session { input, .. } => input.width(leaf_width) + 2,
            Node::Project { expressions, .. } => expressions.len(),
            Node::Join { left, right, .. } => left.width(leaf_width) + right.width(leaf_width),
            Node::Union { inputs } => inputs[0].width(leaf_width),
            Node::Aggregate { keys, aggregates, .. } => keys.len() + aggregates.len(),
        }
    }

    /// The same node over other inputs.
    ///
    /// # Errors
    /// The first of `map`.
    pub fn map_inputs<E>(
        self,
        map: &mut impl FnMut(Node<Leaf>) -> Result<Node<Leaf>, E>,
    ) -> Result<Node<Leaf>, E> {
        let mut node = self;
        for input in node.inputs_mut() {
            // An empty union stands in for the input while it is mapped.
            let taken = std::mem::replace(input, Node::Union { inputs: Vec::new() });
            *input = map(taken)?;
        }
        Ok(node)
    }

    fn inputs_mut(&mut self) -> Vec<&mut Node<Leaf>> {
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
            Node::Union { inputs } => inputs.iter_mut().collect(),
        }
    }

    /// The same tree over other leaves.
    pub fn map_leaves<Other>(self, map: &mut impl FnMut(Leaf) -> Other) -> Node<Other> {
        match self {
            Node::Leaf(leaf) => Node::Leaf(map(leaf)),
            Node::Filter { input, predicate } => Node::Filter {
                input: Box::new(input.map_leaves(map)),
                predicate,
            },
            Node::Project {
                input,
                expressions,
                types,
            } => Node::Project {
                input: Box::new(input.map_leaves(map)),
                expressions,
                types,
            },
            Node::Join {
                kind,
                left,
                right,
                on,
                filter,
                null_safe,
            } => {
                let left = Box::new(left.map_leaves(map));
                Node::Join {
                    kind,
                    left,
                    right: Box::new(right.map_leaves(map)),
                    on,
                    filter,
                    null_safe,
                }
            }
            Node::Union { inputs } => Node::Union {
                inputs: inputs.into_iter().map(|input| input.map_leaves(map)).collect(),
            },
            Node::Aggregate {
                input,
                keys,
                aggregates,
            } => Node::Aggregate {
                input: Box::new(input.map_leaves(map)),
                keys,
                aggregates,
            },
            Node::Distinct { input } => Node::Distinct {
                input: Box::new(input.map_leaves(map)),
            },
            Node::TopK {
                input,
                partition,
                keys,
                skip,
                fetch,
                rank,
            } => Node::TopK {
                input: Box::new(input.map_leaves(map)),
                partition,
                keys,
                skip,
                fetch,
                rank,
            },
            Node::Hop {
                input,
                column,
                slide_us,
                size_us,
            } => Node::Hop {
                input: Box::new(input.map_leaves(map)),
                column,
                slide_us,
                size_us,
            },
            Node::Session {
                input,
                partition,
                column,
                gap_us,
            } => Node::Session {
                input: Box::new(input.map_leaves(map)),
                partition,
                column,
                gap_us,
            },
        }
    }
}
