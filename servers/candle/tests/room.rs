//! A server that is asked for more KV memory than the machine has.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn more_kv_memory_than_the_machine_has_is_refused_at_start() {
    let models = match std::env::var_os("LOADTEST_TEST_MODELS") {
        Some(folder) => PathBuf::from(folder),
        None => dirs::cache_dir().unwrap().join("loadtest/models"),
    };
    let model = models.join("smollm2-135m-instruct.gguf");
    assert!(
        model.exists(),
        "`loadtest models fetch smollm2-135m-instruct` gets {}",
        model.display()
    );
    for weights in ["affine8", "quantized"] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest-candle"))
            .args(["--port", "0", "--parallel", "1000000000", "--context", "2048"])
            .args(["--weights", weights, "--model"])
            .arg(&model)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains("--parallel 1000000000 and --context 2048 need"),
            "{message}"
        );
    }
}
