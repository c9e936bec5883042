//! The server on the real model.

use loadtest_conformance::{model, server};

const SERVER: &str = env!("CARGO_BIN_EXE_loadtest-burn");

#[test]
fn it_serves() {
    server::serves(SERVER, "burn", &model("smollm2-135m-instruct"));
}

#[test]
fn more_kv_memory_than_the_machine_has_is_refused_at_start() {
    server::refuses_more_kv_memory_than_there_is(SERVER, &model("smollm2-135m-instruct"), &[]);
}
