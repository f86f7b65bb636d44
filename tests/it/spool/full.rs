//! A disk that has no space, and one that has some again.

use std::process::Command;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_nothing_and_heals_by_itself() {
    let stage = Stage::new().await;
    let small = stage.dir.path().join("small");
    std::fs::create_dir(&small).expect("a directory");
    // A file system of its own, in namespaces that end with the program.
    let mut command = Command::new("unshare");
    command.args([
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        r#"mount -t tmpfs -o size=2m,mode=0700 none "$0" && exec "$@""#,
    ]);
    command.arg(&small).arg(env!("CARGO_BIN_EXE_meshscrape")).args(stage.arguments(&small.join("data")));
    command.env("NODE_NAME", "node-1");
    let program = Program::spawn(command);
    stage.scrapes(2).await;
    let inside = PathBuf::from(format!("/proc/{}/root", program.id())).join(small.strip_prefix("/").expect("absolute"));
    // All that is left of it is somebody else's.
    let filler = inside.join("filler");
    let full = std::fs::write(&filler, vec![1; 4 << 20]).expect_err("it is not that large");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    stage.scrapes(40).await;
    let backlog = stage.answers();
    assert_eq!(stage.taken(), [0; 0]);
    std::fs::remove_file(&filler).expect("removed");
    stage.scrapes(20).await;
    let (now, all) = (Instant::now(), stage.answers());
    stage.receiver_is(true);
    stage.takes(all).await;
    let finished = stage.finished(0, now);
    assert!(finished.len() > backlog, "{} of {backlog}", finished.len());
    assert_all_in_order(&stage.taken(), &finished);
    program.signal("TERM");
    let said = stderr(&program.end().await);
    assert!(said.contains("the queue on disk does not work"), "{said}");
    assert!(said.contains("the queue on disk works again"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_used_keeps_nobody_from_delivering() {
    let stage = Stage::new().await;
    std::fs::write(stage.data(), "in the way").expect("written");
    let program = stage.start();
    stage.scrapes(3).await;
    stage.receiver_is(true);
    stage.takes(stage.answers()).await;
    std::fs::remove_file(stage.data()).expect("removed");
    eventually("it is used", async || (!stage.files("log").is_empty()).then_some(())).await;
    stage.scrapes(2).await;
    stage.takes(stage.answers()).await;
    let came = stage.taken();
    assert!(came.windows(2).all(|two| two[1] == two[0] + 1), "{came:?}");
    program.signal("TERM");
    let said = stderr(&program.end().await);
    assert!(said.contains("the data directory cannot be used"), "{said}");
    assert!(said.contains("the queue on disk works again"), "{said}");
}
