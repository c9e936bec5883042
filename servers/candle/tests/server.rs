//! The server on the real model.

use loadtest_conformance::{model, server};

const SERVER: &str = env!("CARGO_BIN_EXE_loadtest-candle");

#[test]
fn it_serves() {
    server::serves(SERVER, "candle", &model("smollm2-135m-instruct"));
}

#[test]
fn more_kv_memory_than_the_machine_has_is_refused_at_start() {
    for weights in ["affine8", "quantized"] {
        server::refuses_more_kv_memory_than_there_is(
            SERVER,
            &model("smollm2-135m-instruct"),
            &["--weights", weights],
        );
    }
}
