//! `gpu-worker models`: pulled from folders, indexes and hubs, pinned, verified, and measured.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use gpu_inference::cache_folder;
use serde_json::Value;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn a_model_is_pulled_from_a_folder_pinned_and_repaired() {
    let desk = Desk::new();
    let mirror = desk.path("mirror");
    fs::create_dir_all(mirror.join("my-graph")).unwrap();
    fs::write(mirror.join("my-graph/model.onnx"), graph()).unwrap();
    let manifest = desk.manifest("origin = { url = \"https://example.invalid/model.onnx\" }");
    let from = mirror.to_str().unwrap();
    let pulled = desk.ask(&["pull", "--manifest", &manifest, "--from", from]);
    assert_eq!(pulled["files"][0]["bytes"], graph().len());
    let kept = fs::read_to_string(desk.models().join("my-graph/model.toml")).unwrap();
    assert!(kept.contains("sha256 = ") && kept.contains("size_bytes = "), "{kept}");
    assert_eq!(desk.ask(&["verify"])["models"][0]["ok"], true);
    assert_eq!(desk.state("my-graph"), "here");
    // Again: nothing to fetch.
    let again = desk.ask(&["pull", "my-graph", "--from", from]);
    assert_eq!(again["files"][0]["from"], Value::Null);
    // Damaged, found, and repaired.
    let file = desk.models().join("my-graph/model.onnx");
    let mut damaged = graph();
    damaged[40] ^= 1;
    fs::write(&file, &damaged).unwrap();
    let verified = &desk.ask(&["verify", "my-graph"])["models"][0];
    assert_eq!(
        (&verified["ok"], &verified["fix"]),
        (&false.into(), &"gpuctl models pull my-graph".into())
    );
    desk.ask(&["pull", "my-graph", "--from", from]);
    assert_eq!(fs::read(&file).unwrap(), graph());
    // Another file under the same name is rejected, and leaves nothing behind.
    fs::write(mirror.join("my-graph/model.onnx"), &damaged).unwrap();
    fs::remove_file(&file).unwrap();
    let said = desk.fail(&["pull", "my-graph", "--from", from]);
    assert!(said.contains("expected") && said.contains("SHA-256"), "{said}");
    assert_eq!(fs::read_dir(desk.models().join("my-graph")).unwrap().count(), 1);
    assert_eq!(desk.state("my-graph"), "incomplete");
}

#[test]
fn a_branch_of_a_hub_becomes_its_commit() {
    let desk = Desk::new();
    let revision = "/api/models/owner/name/revision/main".to_owned();
    let (server, _) = serve(HashMap::from([
        (revision, format!(r#"{{"sha": "{COMMIT}"}}"#).into()),
        (format!("/owner/name/resolve/{COMMIT}/onnx/model.onnx"), graph()),
    ]));
    let hub = "origin = { hub = \"owner/name\", revision = \"main\", path = \"onnx/model.onnx\" }";
    let manifest = desk.manifest(hub);
    desk.ask_with(&["pull", "--manifest", &manifest], &[("HF_ENDPOINT", server)]);
    let kept = fs::read_to_string(desk.models().join("my-graph/model.toml")).unwrap();
    assert!(kept.contains(COMMIT) && !kept.contains("main"), "{kept}");
    fs::remove_dir_all(desk.models()).unwrap();
    let said = desk.fail(&["pull", "--manifest", &manifest]);
    assert!(said.contains("no model hub is configured") && said.contains("HF_ENDPOINT"), "{said}");
}

#[test]
fn a_wheel_is_fetched_from_the_index_that_pip_uses() {
    let desk = Desk::new();
    let wheel = wheel(&[("pkg/model.onnx", &graph())]);
    let index = r#"{"files": [{"filename": "my_pkg-1.0-cp311-cp311-win_amd64.whl", "url": "../../no.whl", "hashes": {}},
        {"filename": "my_pkg-1.0-py3-none-any.whl", "url": "../../files/my.whl", "hashes": {}}]}"#;
    let (server, _) = serve(HashMap::from([
        ("/simple/my-pkg/".to_owned(), index.into()),
        ("/files/my.whl".to_owned(), wheel),
    ]));
    let settings = [("PIP_INDEX_URL", format!("{server}/simple"))];
    let origin =
        "origin = { package = \"My_Pkg\", version = \"1.0\", member = \"pkg/model.onnx\" }";
    let pulled = desk.ask_with(&["pull", "--manifest", &desk.manifest(origin)], &settings);
    assert_eq!(pulled["files"][0]["from"], "My_Pkg==1.0: pkg/model.onnx");
    assert_eq!(fs::read(desk.models().join("my-graph/model.onnx")).unwrap(), graph());
    fs::remove_dir_all(desk.models()).unwrap();
    let other = desk.manifest(&origin.replace("1.0", "2.0"));
    let output = desk.run(&["pull", "--manifest", &other], &settings);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("no wheel of My_Pkg==2.0"), "{said}");
    // Neither a variable nor a configuration file names an index.
    let empty = [("PIP_INDEX_URL", String::new()), ("PIP_CONFIG_FILE", "/dev/null".to_owned())];
    let output = desk.run(&["pull", "--manifest", &other], &empty);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no package index is configured"), "{said}");
}

#[test]
fn an_index_and_a_hub_are_those_that_the_machine_is_set_up_for() {
    let desk = Desk::new();
    let index = r#"{"files": [{"filename": "my_pkg-1.0-py3-none-any.whl", "url": "/my.whl"}]}"#;
    let (server, _) = serve(HashMap::from([
        ("/simple/my-pkg/".to_owned(), index.into()),
        ("/my.whl".to_owned(), wheel(&[("m", &graph())])),
    ]));
    let origin = "origin = { package = \"my-pkg\", version = \"1.0\", member = \"m\" }";
    let manifest = desk.manifest(origin);
    let said = desk.fail(&["pull", "--manifest", &manifest]);
    assert!(said.contains("no package index is configured"), "{said}");
    assert!(said.contains("PIP_INDEX_URL") && said.contains("--from"), "{said}");
    let conf = desk.path("pip.conf");
    fs::write(&conf, format!("[global]\nindex-url = {server}/simple/\n")).unwrap();
    let settings = [("PIP_CONFIG_FILE", conf.display().to_string())];
    desk.ask_with(&["pull", "--manifest", &manifest], &settings);
    let hub = "origin = { hub = \"owner/name\", revision = \"main\", path = \"model.onnx\" }";
    fs::remove_dir_all(desk.models()).unwrap();
    let said = desk.fail(&["pull", "--manifest", &desk.manifest(hub)]);
    assert!(said.contains("no model hub is configured") && said.contains("HF_ENDPOINT"), "{said}");
}

#[test]
fn a_file_in_pieces_is_put_together_and_each_wheel_is_fetched_once() {
    let desk = Desk::new();
    let graph = graph();
    let (begin, rest) = graph.split_at(graph.len() / 2);
    let (middle, end) = rest.split_at(rest.len() / 2);
    let index = |name: &str| {
        let file =
            format!(r#"{{"filename": "{name}-1.0-py3-none-any.whl", "url": "/{name}.whl"}}"#);
        format!(r#"{{"files": [{file}]}}"#).into()
    };
    let (server, asked) = serve(HashMap::from([
        ("/simple/one/".to_owned(), index("one")),
        ("/simple/two/".to_owned(), index("two")),
        ("/one.whl".to_owned(), wheel(&[("a", begin), ("c", end)])),
        ("/two.whl".to_owned(), wheel(&[("b", middle)])),
    ]));
    let part = |package: &str, member: &str| {
        format!("package = \"{package}\", version = \"1.0\", member = \"{member}\"")
    };
    let (first, second, third) = (part("one", "a"), part("two", "b"), part("one", "c"));
    let origin = format!("origin = {{ {first}, then = [{{ {second} }}, {{ {third} }}] }}");
    let places = [("PIP_INDEX_URL", format!("{server}/simple"))];
    let pulled = desk.ask_with(&["pull", "--manifest", &desk.manifest(&origin)], &places);
    assert_eq!(pulled["files"][0]["from"], "one==1.0: a, two==1.0: b, one==1.0: c");
    assert_eq!(fs::read(desk.models().join("my-graph/model.onnx")).unwrap(), graph);
    let asked = asked.lock().unwrap();
    assert_eq!(*asked, ["/simple/one/", "/one.whl", "/simple/two/", "/two.whl"]);
}

#[test]
fn a_model_of_ones_own_needs_no_origin() {
    let desk = Desk::new();
    let manifest = desk.manifest("");
    let said = desk.fail(&["pull", "--manifest", &manifest]);
    assert!(said.contains("has no origin: put it there as"), "{said}");
    fs::create_dir_all(desk.models().join("my-graph")).unwrap();
    fs::write(desk.models().join("my-graph/model.onnx"), graph()).unwrap();
    // What lies there is pinned.
    desk.ask(&["pull", "--manifest", &manifest]);
    assert_eq!(desk.ask(&["verify"])["models"][0]["ok"], true);
    // From then on another file is rejected.
    fs::write(desk.models().join("my-graph/model.onnx"), b"another").unwrap();
    assert!(desk.fail(&["pull", "my-graph"]).contains("has no origin"));
    assert_eq!(desk.ask(&["verify"])["models"][0]["ok"], false);
}

#[test]
fn an_error_says_why_a_model_cannot_be_pulled() {
    let desk = Desk::new();
    let said = desk.fail(&["pull", "nothing"]);
    assert!(said.contains("known are") && said.contains("pp-ocr-v6-small"), "{said}");
    let outside =
        desk.manifest("origin = { url = \"file:///x\" }").replace("m.toml", "outside.toml");
    let text = fs::read_to_string(desk.path("m.toml")).unwrap();
    fs::write(&outside, text.replace("path = \"model.onnx\"", "path = \"../model.onnx\"")).unwrap();
    let said = desk.fail(&["pull", "--manifest", &outside]);
    assert!(said.contains("leads out of the folder"), "{said}");
    fs::write(&outside, text.replace("my-graph", "../my-graph")).unwrap();
    assert!(desk.fail(&["pull", "--manifest", &outside]).contains("characters other than a-z"));
    let said = desk.fail(&["pull", "--manifest", &desk.manifest("origin = { ftp = \"x\" }")]);
    assert!(said.contains("its origin is not valid"), "{said}");
    assert!(said.contains("unknown field `ftp`"), "{said}");
}

#[test]
fn known_models_are_listed_with_those_that_are_here() {
    let desk = Desk::new();
    assert_eq!(desk.state("pp-ocr-v6-small"), "known");
    assert_eq!(desk.state("u2netp"), "known");
}

#[test]
fn each_batch_that_a_graph_takes_is_measured_and_the_others_are_named() {
    let desk = Desk::new();
    let graphs = [("GPUCTL_MODELS", cache_folder().join("graphs").display().to_string())];
    let wanted = ["bench", "classifier-one", "yolo-rows", "sam2-small/decoder", "--batch", "1,4"];
    let options = ["--device", "cpu", "--seconds", "0.02", "--threads", "1", "--length", "16"];
    let found = desk.ask_with(&[&wanted[..], &options].concat(), &graphs);
    assert_eq!(found["threads"], 1);
    let rows = found["rows"].as_array().unwrap();
    let cases: Vec<(&str, u64)> = rows
        .iter()
        .map(|row| (row["graph"].as_str().unwrap(), row["batch"].as_u64().unwrap()))
        .collect();
    assert!(
        cases.starts_with(&[("classifier-one", 1), ("classifier-one", 4), ("yolo-rows", 1)]),
        "{found}"
    );
    for row in rows {
        assert!(
            row["items_per_second"].as_f64().unwrap() > 0.0 && row["calls"].as_u64() >= Some(3),
            "{row}"
        );
    }
    let skipped = found["skipped"].to_string();
    assert!(skipped.contains("yolo-rows") && skipped.contains("not 4"), "{skipped}");
}

/// A folder for one test, with models of its own.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn models(&self) -> PathBuf {
        self.path("models")
    }

    /// A manifest without hashes, of a model with one file.
    fn manifest(&self, origin: &str) -> String {
        let text = format!(
            "name = \"my-graph\"\nfamily = \"onnx\"\ntask = \"onnx.run\"\nlicence = \"mine\"\nprecision = \"fp32\"\n\
            max_batch = 1\nmemory_mib = 9\n[[file]]\nrole = \"graph\"\npath = \"model.onnx\"\n{origin}\n"
        );
        let path = self.path("m.toml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        self.ask_with(arguments, &[])
    }

    fn ask_with(&self, arguments: &[&str], settings: &[(&str, String)]) -> Value {
        let output = self.run(arguments, settings);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, &[]);
        assert!(!output.status.success(), "{arguments:?} went well");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn run(&self, arguments: &[&str], settings: &[(&str, String)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-worker"));
        command.arg("models").args(arguments).current_dir(self.0.path());
        command.env_remove("GPUCTL_CONFIG").env_remove("HF_TOKEN").env_remove("HF_ENDPOINT");
        // No index but the one that a test names, whatever pip of this machine is set to.
        command.env_remove("PIP_INDEX_URL").env("PIP_CONFIG_FILE", "/dev/null");
        command.env("GPUCTL_CACHE", cache_folder()).env("HOME", self.0.path());
        command.env("GPUCTL_MODELS", self.models()).env("GPUCTL_LOG", "error");
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        command.output().unwrap()
    }

    fn state(&self, model: &str) -> String {
        let listed = self.ask(&["list"]);
        let models = listed["models"].as_array().unwrap();
        let found = models.iter().find(|listed| listed["name"] == model).unwrap();
        found["state"].as_str().unwrap().to_owned()
    }
}

/// A small file that ONNX Runtime would load.
fn graph() -> Vec<u8> {
    let path = cache_folder().join("graphs/siglip-small/vision_model.onnx");
    fs::read(Path::new(&path)).expect("run scripts/make-graphs.py")
}

/// A wheel with these files.
fn wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut wheel = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        wheel.start_file(*name, SimpleFileOptions::default()).unwrap();
        wheel.write_all(content).unwrap();
    }
    wheel.finish().unwrap().into_inner()
}

/// Serves files on a port of its own for as long as the test runs; gives its address, and what it was asked for.
fn serve(files: HashMap<String, Vec<u8>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = request.split(' ').nth(1).unwrap();
            noted.lock().unwrap().push(path.to_owned());
            let (status, body) = match files.get(path) {
                Some(body) => ("200 OK", body.as_slice()),
                None => ("404 Not Found", &[][..]),
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            // The client may have closed the connection.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    (address, asked)
}
