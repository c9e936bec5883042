//! Keys and values of the sequences, and attention over them.

use crate::groups::Group;
use burn_tensor::activation::softmax;
use burn_tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};
use loadtest_weights::config::Config;

/// One layer's keys and values, `slots x context x kv_heads x head_dim`. On the CPU, the system puts memory behind them
/// as positions are first written; what a sequence leaves is overwritten by the next in its slot.
pub struct Cache {
    // Some between operations: a write needs the tensor to itself, or it would copy it.
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
}

impl Cache {
    /// Memory for `slots` sequences of up to `context` positions.
    pub fn new(config: &Config, slots: usize, context: usize, device: &Device) -> Self {
        let shape = [slots, context, config.kv_heads, config.head_dim];
        let empty = || Some(Tensor::zeros(shape, (device, DType::F32)));
        Self {
            keys: empty(),
            values: empty(),
        }
    }

    /// Writes the rows' keys and values (`rows x kv_width`) to `places`, that is `slot * context + position`.
    pub fn write(&mut self, places: &Tensor<1, Int>, keys: Tensor<2>, values: Tensor<2>) {
        for (memory, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            *memory = memory.take().map(|memory| {
                let shape = memory.dims();
                let [slots, context, heads, dim] = shape;
                let flat = memory.reshape([slots * context, heads * dim]);
                let flat = flat.select_assign(0, places.clone(), new, IndexingUpdateOp::Assign);
                flat.reshape(shape)
            });
        }
    }

    /// Attention of a group's rows (`rows x query_width`, already scaled) over what its sequences remember.
    pub fn attend(&self, config: &Config, group: &Group, sees: &Sees, query: Tensor<2>) -> Tensor<2> {
        let (slots, rows) = (group.positions.len(), group.rows);
        let (kv_heads, dim) = (config.kv_heads, config.head_dim);
        let queries = config.heads / kv_heads;
        let memory = |memory: &Option<Tensor<4>>| {
            let memory = memory.as_ref().expect("nothing is being written").clone();
            memory.slice([group.slot..group.slot + slots, sees.span.clone()])
        };
        let keys = memory(&self.keys).permute([0, 2, 3, 1]);
        let values = memory(&self.values).permute([0, 2, 1, 3]);
        // The queries of all heads that share keys are rows of one product.
        let query = match rows {
            1 => query.reshape([slots, kv_heads, queries, dim]),
            _ => query
                .reshape([slots, rows, kv_heads, queries, dim])
                .permute([0, 2, 3, 1, 4])
                .reshape([slots, kv_heads, queries * rows, dim]),
        };
        let mut scores = query.matmul(keys);
        if let Some(mask) = &sees.mask {
            scores = scores + mask.clone();
        }
        let result = softmax(scores, 3).matmul(values);
        match rows {
            1 => result.reshape([slots, config.query_width()]),
            _ => result
                .reshape([slots, kv_heads, queries, rows, dim])
                .permute([0, 3, 1, 2, 4])
                .reshape([slots * rows, config.query_width()]),
        }
    }
}

/// What the rows of a group see of their sequences.
pub struct Sees {
    span: std::ops::Range<usize>,
    /// Added to scores, `slots x 1 x queries x span`; none if every row sees all of the span.
    mask: Option<Tensor<4>>,
}

impl Sees {
    /// For layers in which a row sees at most `window` positions.
    pub fn new(config: &Config, group: &Group, window: Option<usize>, device: &Device) -> Self {
        let window = window.unwrap_or(usize::MAX);
        let (span, queries) = (group.span(window), config.heads / config.kv_heads);
        if group.sees_all() {
            return Self { span, mask: None };
        }
        let mut mask = Vec::with_capacity(group.positions.len() * queries * group.rows * span.len());
        for position in &group.positions {
            for _ in 0..queries {
                for row in *position..position + group.rows {
                    let seen = |key: usize| key <= row && row - key < window;
                    mask.extend(
                        span.clone()
                            .map(|key| if seen(key) { 0.0 } else { f32::NEG_INFINITY }),
                    );
                }
            }
        }
        let shape = [group.positions.len(), 1, queries * group.rows, span.len()];
        let mask = Tensor::from_data(TensorData::new(mask, shape), (device, DType::F32));
        Self {
            span,
            mask: Some(mask),
        }
    }
}
