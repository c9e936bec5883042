//! `loadtest serve`: a server at the address that was asked for.
#![cfg(target_os = "linux")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use support::{House, reference_program, stderr};

/// An engine that is told these words.
fn engine(house: &House, name: &str, more: &str) {
    let program = reference_program();
    house.engine(
        name,
        &format!(
            "name = {name:?}\ntitle = {name:?}\nkind = \"spawned\"\ndescription = \"x\"\nformats = [\"gguf\"]\n\
             [find]\nprograms = [{program:?}]\n[serve]\n\
             args = [\"--port\", \"{{port}}\", \"--model-name\", \"{{model_name}}\"{more}]\n\
             [ready]\npath = \"/health\"\n"
        ),
    );
}

/// `loadtest serve` until it is dropped.
struct Serving {
    process: Child,
    /// What it said once the model answered.
    said: String,
}

impl Serving {
    fn at(host: &str, house: &House) -> Serving {
        engine(house, "told", ", \"--host\", \"{host}\"");
        let model = house.tiny_model();
        let mut process = house
            .command()
            .args(["serve", "told", "--host", host, "--port", "0", "--model"])
            .arg(model)
            .stdout(Stdio::piped())
            .spawn()
            .expect("loadtest starts");
        let mut said = String::new();
        let stdout = process.stdout.take().expect("its output is piped");
        BufReader::new(stdout)
            .read_line(&mut said)
            .expect("it says where");
        Serving { process, said }
    }

    /// The address and the port of the URL that it said.
    fn url(&self) -> (&str, u16) {
        let url = self.said.split_once("http://").expect("a URL").1;
        let (host, rest) = url.split_once(':').expect("a port");
        let (port, _) = rest.split_once("/v1").expect("a path");
        (host, port.parse().expect("a number"))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, Signal::SIGINT);
        let _ = self.process.wait();
    }
}

#[test]
fn it_listens_on_the_address_asked_for_and_on_no_other() {
    let house = House::new();
    let serving = Serving::at("127.0.0.2", &house);
    let (host, port) = serving.url();
    assert_eq!(host, "127.0.0.2", "{}", serving.said);
    assert!(TcpStream::connect((host, port)).is_ok());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn on_all_addresses_it_is_reached_at_each_and_one_to_connect_to_is_said() {
    let house = House::new();
    let serving = Serving::at("0.0.0.0", &house);
    let (host, port) = serving.url();
    assert_eq!(host, "127.0.0.1", "{}", serving.said);
    assert!(serving.said.contains("and at this machine's other addresses"));
    for host in ["127.0.0.1", "127.0.0.2"] {
        assert!(TcpStream::connect((host, port)).is_ok(), "{host}");
    }
}

#[test]
fn an_engine_that_cannot_be_told_its_address_refuses_another() {
    let house = House::new();
    engine(&house, "untold", "");
    let model = house.tiny_model();
    let output = house.run(&[
        "serve",
        "untold",
        "--host",
        "0.0.0.0",
        "--model",
        model.to_str().expect("UTF-8"),
    ]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(
        said.contains("error: ") && said.contains("untold") && said.contains("{host}"),
        "{said}"
    );

    let output = house.run(&["serve", "untold", "--host", "my-machine"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("must be an IPv4 address, e.g. 127.0.0.1 or 0.0.0.0"),
        "{}",
        stderr(&output)
    );
}
