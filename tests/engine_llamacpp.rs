//! llama.cpp for real, where it is installed and a model is at hand: LOADTEST_TEST_GGUF names one.

use loadtest::engine::{self, Access, Settings};

#[tokio::test]
#[ignore = "needs `loadtest engines install llamacpp` and a GGUF named in LOADTEST_TEST_GGUF"]
async fn llama_cpp_serves_and_is_understood() {
    let Some(model) = std::env::var_os("LOADTEST_TEST_GGUF") else {
        panic!("LOADTEST_TEST_GGUF names no model")
    };
    let dir = tempfile::tempdir().unwrap();
    let recipe = engine::recipe("llamacpp").unwrap();
    let said = |status: &str| println!("{status}");
    let program = engine::install(&recipe, &said).unwrap();
    assert_eq!(engine::ensure(&recipe, None, &said).unwrap(), program);
    let mut settings = Settings::new(model, "a-model", dir.path().join("engine.log"));
    (settings.parallel, settings.context) = (2, 512);
    settings.guard = env!("CARGO_BIN_EXE_loadtest").into();
    let running = engine::start(&recipe, &program, &settings, &said).await.unwrap();
    assert_eq!(
        (running.effective().parallel, running.effective().context),
        (Some(2), Some(512))
    );
    let found = engine::check(&recipe, &running, &Access::default())
        .await
        .unwrap();
    println!("{found:#?} {:?} {:?}", running.effective(), running.version());
    assert_eq!((found.status, found.role_chunk, found.done), (200, true, true));
    assert_eq!(
        (found.usage, found.completion_tokens),
        (Some("own chunk"), Some(16))
    );
    let exit = running.stop().await.unwrap();
    assert_eq!(exit.code, Some(0), "{}", exit.log_tail);
}
