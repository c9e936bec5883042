//! guidellm
use crate::measure::result::RunResult;
use serde_json::Value;
pub(super) fn engine(_run: &RunResult, _engine: &str) -> Value {
    Value::Null
}
