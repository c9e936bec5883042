//! A stand-in for lm.rs's `backend`: its arguments, its protocol, and its ways to fail.

use std::io::Write;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Appends a line to the file that the test reads.
fn note(line: &str) {
    let path = std::env::var_os("FAKE_LOG").expect("the test names a log");
    let file = std::fs::File::options().create(true).append(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}")).expect("noted");
}

/// Serves until it is killed; the arguments are in `FAKE_ARGS`.
pub fn serve() {
    let args = std::env::var("FAKE_ARGS").expect("the bridge's arguments");
    let args: Vec<&str> = args.split(' ').collect();
    let value = |name: &str| {
        let at = args
            .iter()
            .position(|word| *word == name)
            .expect("a flag of the real one");
        args[at + 1].to_owned()
    };
    for file in ["--model", "--tokenizer"] {
        assert!(std::path::Path::new(&value(file)).is_file(), "{file}");
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let address = format!("{}:{}", value("--ip"), value("--port"));
        note(&format!(
            "start {} {} {}",
            std::process::id(),
            value("--temperature"),
            value("--top-p")
        ));
        let listener = TcpListener::bind(&address).await.expect("a port");
        println!("Listening on: {address}");
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream));
        }
    });
}

async fn connection(stream: TcpStream) {
    // One that only looks whether somebody listens is no WebSocket.
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
        return;
    };
    let Some(Ok(Message::Text(asked))) = socket.next().await else {
        return;
    };
    let asked: Value = serde_json::from_str(&asked).expect("JSON");
    let text = asked["text"].as_str().expect("a text").to_owned();
    assert!(!text.is_empty(), "Text to encode should not be empty");
    if play(&mut socket, &text).await.is_err() {
        note("send failed");
    }
}

/// Does what the prompt says.
async fn play(socket: &mut WebSocketStream<TcpStream>, script: &str) -> Result<(), Error> {
    let mut words = script.split(' ');
    let mut next = || words.next().unwrap_or_default().to_owned();
    let mut order = next();
    if order == "status" {
        socket.send(frame("STATUS", "Filling KV cache")).await?;
        order = next();
    }
    let count: u64 = next().parse().unwrap_or(u64::MAX);
    if order == "garbage" {
        return socket.send(Message::text("no JSON")).await;
    }
    // The real one computes between two frames.
    let gap = match order.as_str() {
        "crawl" => Duration::from_millis(50),
        _ => Duration::from_millis(1),
    };
    for n in 0..count {
        socket.send(frame("OUTPUT", &format!(" w{n}"))).await?;
        tokio::time::sleep(gap).await;
        if order == "hold" {
            while let Some(Ok(_)) = socket.next().await {}
        }
    }
    match order.as_str() {
        "die" => std::process::abort(),
        "break" => Ok(()),
        _ => {
            socket.send(frame("OUTPUT", "<eos>")).await?;
            // It waits for the next prompt.
            while let Some(Ok(_)) = socket.next().await {}
            Ok(())
        }
    }
}

fn frame(category: &str, text: &str) -> Message {
    Message::text(json!({ "category": category, "text": text }).to_string())
}
