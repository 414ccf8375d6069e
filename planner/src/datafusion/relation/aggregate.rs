//! GROUP BY: keys, arguments and filters become columns of a projection below the aggregate. DISTINCT arguments are
//! marked there, and [`crate::split::distinct`] takes them apart.

use arrow_schema::DataType;
use datafusion_expr::Expr as DfExpr;
use datafusion_expr::logical_plan::Aggregate;

use super::{Columns, Converter, Relation, projected};
use crate::datafusion::aggregates;
use crate::datafusion::scalar::Scope;
use crate::datafusion::typed::{Typed, comparison, functions};
use crate::error::PlanError;
use crate::plan::{AggregateCall, Expr, Literal, Node};
use crate::split::distinct;

impl Converter<'_> {
    /// Groups: keys, arguments and filters become columns of a projection below.
    pub(super) fn aggregate(&self, aggregate: &Aggregate) -> Result<Relation, PlanError> {
        let input = self.convert(&aggregate.input)?;
        let scope = self.scope(aggregate.input.schema(), &input.types);
        let mut columns = Columns::default();
        let mut keys = Vec::new();
        for (index, expr) in aggregate.group_expr.iter().enumerate() {
            // A key that is named twice is one column of the front end's schema.
            if aggregate.group_expr[..index].contains(expr) {
                continue;
            }
            if matches!(expr, DfExpr::GroupingSet(_)) {
                let what = "GROUPING SETS, ROLLUP or CUBE in a view";
                return Err(PlanError::unsupported(what, "Write one view per grouping."));
            }
            let key = scope.convert(expr)?.settled(scope.zone)?;
            comparison::check_comparable(&key.data_type, "a GROUP BY column")?;
            keys.push(columns.position(key));
        }
        let mut calls = Vec::new();
        for expr in &aggregate.aggr_expr {
            calls.push(call(&scope, expr, &mut columns)?);
        }
        let mut types: Vec<DataType> = keys.iter().map(|&key| columns.0[key].data_type.clone()).collect();
        types.extend(calls.iter().map(|call| call.output_type.clone()));
        if types.len() != aggregate.schema.fields().len() {
            return Err(PlanError::internal(
                "the columns of a grouping are not those of its schema",
            ));
        }
        if columns.0.is_empty() {
            // Rows without columns are awkward to count; a constant stands for them.
            columns.0.push(Typed::new(
                Expr::Literal(Literal::boolean(true)),
                DataType::Boolean,
            ));
        }
        let (expressions, column_types) = columns
            .0
            .into_iter()
            .map(|column| (column.expr, column.data_type))
            .unzip();
        let node = projected(input.node, expressions, column_types).node;
        Ok(Relation {
            node: Node::Aggregate {
                input: Box::new(node),
                keys,
                aggregates: calls,
            },
            types,
        })
    }
}

/// One aggregate, with its argument and filter among the columns.
fn call(scope: &Scope<'_>, expr: &DfExpr, columns: &mut Columns) -> Result<AggregateCall, PlanError> {
    let function = match expr {
        DfExpr::Alias(alias) => return call(scope, &alias.expr, columns),
        DfExpr::AggregateFunction(function) => function,
        _ => {
            return Err(PlanError::internal(
                "something else stands where an aggregate should",
            ));
        }
    };
    let name = function.func.name();
    let params = &function.params;
    if !params.order_by.is_empty() {
        return Err(PlanError::unsupported(
            format_args!("ORDER BY inside {name}()"),
            "The order does not matter to the aggregates of views; leave it out.",
        ));
    }
    if params.null_treatment.is_some() {
        return Err(PlanError::unsupported(
            "IGNORE NULLS or RESPECT NULLS",
            "Use FILTER (WHERE … IS NOT NULL).",
        ));
    }
    let [argument] = params.args.as_slice() else {
        return Err(functions::wrong_arguments(name));
    };
    let argument = scope.convert(argument)?;
    // DISTINCT changes nothing for the others: min, max and the boolean ones.
    let distinct = params.distinct && matches!(name, "count" | "sum" | "avg");
    // count(*), and count of a constant, count rows.
    let counts_rows = name == "count"
        && !distinct
        && argument
            .as_literal()
            .is_some_and(|literal| literal.value.is_some());
    let argument = argument.settled(scope.zone)?;
    let (function, input_type, output_type) = aggregates::resolve(name, &argument)?;
    let condition = match &params.filter {
        None => None,
        Some(filter) => Some(scope.condition(filter, "FILTER")?),
    };
    let argument = match &condition {
        Some(condition) => where_counted(condition, argument),
        None => argument,
    };
    let filter = condition.map(|condition| columns.position(Typed::new(condition, DataType::Boolean)));
    if counts_rows {
        return Ok(AggregateCall {
            function,
            argument: None,
            filter,
            input_type: DataType::Null,
            output_type,
        });
    }
    let argument = if distinct {
        comparison::check_comparable(&argument.data_type, "a DISTINCT argument")?;
        let marked = distinct::mark(argument.expr, argument.data_type.clone());
        Typed::new(marked, argument.data_type)
    } else {
        argument
    };
    let argument = Some(columns.position(argument));
    Ok(AggregateCall {
        function,
        argument,
        filter,
        input_type,
        output_type,
    })
}

/// The argument, computed only on rows that FILTER lets through: elsewhere an error in it is none.
fn where_counted(condition: &Expr, argument: Typed) -> Typed {
    if matches!(argument.expr, Expr::Column(_) | Expr::Literal(_)) {
        return argument;
    }
    let branches = vec![(condition.clone(), argument.expr)];
    Typed::new(
        Expr::Case {
            branches,
            otherwise: None,
        },
        argument.data_type,
    )
}
