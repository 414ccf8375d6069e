//! Top-k: `Δ(top R) = top(R + ΔR) - top(R)`, where top takes `fetch` rows after the first `skip`.
//!
//! Stateful: all rows, in the order asked for; ties are broken by all columns, so the result is a function of
//! the contents. A row of weight 3 counts as three rows. Only the first `skip + fetch` rows are read in a step.

use arrow::array::{Int64Array, UInt32Array};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use tributary_planner::plan::SortKey;
use tributary_storage::{Delta, Layout, Trace};

use super::Step;
use super::groups::key_types;
use crate::canonical::KeyColumns;
use crate::columns::schema_of;
use crate::error::Result;
use crate::state::{Builder, StateId, States};

#[derive(Debug)]
pub(crate) struct TopK {
    columns: KeyColumns,
    types: Vec<DataType>,
    state: StateId,
    skip: usize,
    fetch: usize,
}

impl TopK {
    pub(crate) fn build(
        builder: &mut Builder,
        operator: &str,
        input: &[DataType],
        keys: &[SortKey],
        skip: usize,
        fetch: usize,
    ) -> Result<Self> {
        let sorted: Vec<usize> = keys.iter().map(|key| key.column).collect();
        key_types(&sorted, input)?;
        let columns = KeyColumns::new(input, &sorted);
        let options = keys.iter().map(|k| SortOptions {
            descending: k.descending,
            nulls_first: k.nulls_first,
        });
        let order = columns.key.iter().copied().zip(options).collect();
        let layout = Layout {
            schema: columns.schema.clone(),
            key: Vec::new(),
            order,
        };
        let state = builder.trace(operator, "rows", layout)?;
        Ok(Self {
            columns,
            types: input.to_vec(),
            state,
            skip,
            fetch,
        })
    }

    pub(crate) fn eval(&self, step: &mut Step, delta: &Delta) -> Delta {
        let schema = schema_of(&self.types);
        if delta.is_empty() || self.fetch == 0 {
            return Delta::empty(schema);
        }
        let before = self.top(step.states).negated();
        step.states[self.state].apply(&delta.with_rows(self.columns.extend(delta.rows())));
        let after = self.top(step.states);
        Delta::concat(schema, &[before, after]).consolidated()
    }

    fn top(&self, states: &States) -> Delta {
        let end = self.skip.saturating_add(self.fetch);
        let found = states[self.state].lookup_n(&[], 1, end, false);
        let (mut kept, mut weights): (Vec<u32>, Vec<i64>) = (Vec::new(), Vec::new());
        let (skip, end) = (self.skip as u128, end as u128);
        let mut passed: u128 = 0;
        for (row, weight) in found.weights.values().iter().enumerate() {
            let next = passed + u128::from(weight.unsigned_abs());
            let (from, to) = (passed.max(skip), next.min(end));
            if from < to {
                kept.push(row as u32);
                weights.push((to - from) as i64);
            }
            passed = next;
        }
        let rows = Delta::inserts(self.columns.own(&found.rows)).take(&UInt32Array::from(kept));
        let (rows, _) = rows.into_parts();
        Delta::new(rows, Some(Int64Array::from(weights)))
    }
}
