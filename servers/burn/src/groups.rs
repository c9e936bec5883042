//! Which sequences of a step attention computes together. Pure.

use loadtest_shell::Rows;

/// Neighbours in memory with the same number of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Slot of the first.
    pub slot: usize,
    /// The first of their rows in the step.
    pub row: usize,
    /// Rows of each.
    pub rows: usize,
    /// Position of each one's first row.
    pub positions: Vec<usize>,
}

impl Group {
    /// All of their rows in the step.
    pub fn all_rows(&self) -> std::ops::Range<usize> {
        self.row..self.row + self.rows * self.positions.len()
    }

    /// Positions that any of them looks at, if a row sees at most `window` of them.
    pub fn span(&self, window: usize) -> std::ops::Range<usize> {
        let start = |position: &usize| (position + 1).saturating_sub(window);
        let end = self.positions.iter().max().map_or(0, |last| last + self.rows);
        self.positions.iter().map(start).min().unwrap_or(0)..end
    }

    /// Whether every row sees all of [`span`](Self::span), whatever the window.
    pub fn sees_all(&self) -> bool {
        self.rows == 1
            && self
                .positions
                .iter()
                .all(|position| *position == self.positions[0])
    }
}

/// The order in which the step lays out its rows: by slot, those that decode before those that read prompts.
pub fn order(batch: &[Rows<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_unstable_by_key(|&entry| (batch[entry].tokens.len() > 1, batch[entry].slot));
    order
}

/// Groups of the batch in that order.
///
/// Sequences that decode in neighbouring slots join as long as no more than half of what is computed is padding to the
/// longest of them, and at most `most` of them.
pub fn groups(batch: &[Rows<'_>], order: &[usize], most: usize) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut row = 0;
    for rows in order.iter().map(|&entry| &batch[entry]) {
        let joined = groups.last_mut().filter(|group| {
            let lengths = group.positions.iter().chain([&rows.position]);
            let (longest, sum) = lengths.fold((0, 0), |(longest, sum), position| {
                (longest.max(position + 1), sum + position + 1)
            });
            let together = group.positions.len() + 1;
            group.rows == 1
                && together <= most
                && rows.tokens.len() == 1
                && group.slot + group.positions.len() == rows.slot
                && together * longest <= 2 * sum
        });
        match joined {
            Some(group) => group.positions.push(rows.position),
            None => groups.push(Group {
                slot: rows.slot,
                row,
                rows: rows.tokens.len(),
                positions: vec![rows.position],
            }),
        }
        row += rows.tokens.len();
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch<'a>(entries: &[(usize, usize, &'a [u32])]) -> Vec<Rows<'a>> {
        let rows = |&(slot, position, tokens)| Rows {
            slot,
            position,
            tokens,
            logits: true,
        };
        entries.iter().map(rows).collect()
    }

    #[test]
    fn neighbours_that_decode_join_unless_padding_prevails() {
        let one = &[7][..];
        let batch = batch(&[
            (4, 30, one),
            (0, 10, one),
            (3, 0, &[1, 2, 3]),
            (1, 14, one),
            (5, 40, one),
            (6, 900, one),
            (2, 12, one),
        ]);
        let order = order(&batch);
        assert_eq!(order, [1, 3, 6, 0, 4, 5, 2]);
        let group = |slot, row, rows, positions: &[usize]| Group {
            slot,
            row,
            rows,
            positions: positions.to_vec(),
        };
        let expected = [
            group(0, 0, 1, &[10, 14, 12]),
            group(4, 3, 1, &[30, 40]),
            group(6, 5, 1, &[900]),
            group(3, 6, 3, &[0]),
        ];
        assert_eq!(groups(&batch, &order, 3), expected);
        assert_eq!(groups(&batch, &order, 2).len(), 5);
    }

    #[test]
    fn a_window_cuts_the_span_off_at_the_earliest_row() {
        let group = Group {
            slot: 0,
            row: 0,
            rows: 1,
            positions: vec![9, 30],
        };
        assert_eq!(group.span(usize::MAX), 0..31);
        assert_eq!(group.span(8), 2..31);
        assert!(!group.sees_all());
    }
}
