//! A disk that has no space or cannot be written to, and one that can be used again.

use super::*;
use crate::support::namespaces::SmallDisk;

/// The program with its queues on a file system of its own.
fn start_on(stage: &Stage, disk: &SmallDisk) -> Program {
    // Segments are so small that one is full before long.
    let config = stage.config().replace("queue_config: {", "queue_config: {max_disk: 16MiB, ");
    let arguments = arguments(stage.dir.path(), &stage.dir.path().join("small/data"), &config);
    let mut command = disk.inside();
    command.arg(env!("CARGO_BIN_EXE_meshscrape")).args(arguments);
    Program::spawn(command)
}

async fn says(program: &Program, words: &str) {
    let deadline = Instant::now() + scale(Duration::from_secs(60), Duration::from_secs(600));
    while !program.said().contains(words) {
        assert!(Instant::now() < deadline, "it never says that {words}: {}", program.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_nothing_and_heals_by_itself() {
    let (megabytes, full_for) = scale((2, Duration::from_secs(6)), (16, trouble()));
    let stage = Stage::new().await;
    let disk = SmallDisk::at(&stage.dir.path().join("small"), megabytes);
    let program = start_on(&stage, &disk);
    stage.scrapes(2).await;
    let memory = program.usage().resident;
    // All that is left of it is somebody else's.
    let filler = disk.outside().join("filler");
    let full = std::fs::write(&filler, vec![1; (megabytes as usize + 2) << 20]).expect_err("it is not that large");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    tokio::time::sleep(full_for).await;
    stage.scrapes(1).await;
    let backlog = stage.answers();
    assert_eq!(stage.taken(), [0; 0]);
    std::fs::remove_file(&filler).expect("removed");
    stage.scrapes(20).await;
    let (now, all) = (Instant::now(), stage.answers());
    stage.receiver_is(true);
    stage.takes(all).await;
    let losses = Losses::of(&stage.finished(0, now), &stage.receiver.recorded());
    let memory = grown("a full disk", &program, memory);
    println!("{full_for:?} of a full disk, and then space again: {losses}; {memory}");
    assert!(losses.finished > backlog, "{} of {backlog}", losses.finished);
    assert!(losses.lost.is_empty(), "{losses}: {}", program.said());
    losses.assert_none("a full disk");
    program.signal("TERM");
    let said = stderr(&program.end().await);
    assert!(said.contains("the queue on disk does not work"), "{said}");
    assert!(said.contains("the queue on disk works again"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_read_only_for_a_while_costs_nothing() {
    let while_read_only = scale(Duration::from_secs(2), Duration::from_secs(240));
    let stage = Stage::with(Numbered::bulky(scale(500, 30), 100)).await;
    let disk = SmallDisk::at(&stage.dir.path().join("small"), 32);
    let (first, began) = (start_on(&stage, &disk), stage.answers());
    stage.scrapes(5).await;
    // Linux does not let a file system become read-only while a file is open for writing. But what is mounted over it lets
    // nothing be made, given another name or opened to be written, until it is gone again; only what is open goes on.
    disk.sh(r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0""#);
    says(&first, "the queue on disk does not work").await;
    tokio::time::sleep(while_read_only).await;
    disk.sh(r#"umount --lazy "$0""#);
    says(&first, "the queue on disk works again").await;
    stage.scrapes(5).await;
    first.signal("KILL");
    let mut finished = stage.finished(began, Instant::now());
    first.end().await;

    // Nothing is open any more.
    disk.sh(r#"mount -o remount,ro "$0""#);
    let (second, began) = (start_on(&stage, &disk), stage.answers());
    says(&second, "the queue on disk does not work").await;
    tokio::time::sleep(while_read_only).await;
    disk.sh(r#"mount -o remount,rw "$0""#);
    says(&second, "the queue on disk works again").await;
    stage.scrapes(5).await;
    finished.extend(stage.finished(began, Instant::now()));
    stage.receiver_is(true);
    stage.takes(stage.answers()).await;
    let losses = Losses::of(&finished, &stage.receiver.recorded());
    println!("{while_read_only:?} read-only under way, and as long from the start: {losses}");
    losses.assert_none("a read-only disk");
    assert_eq!(losses.twice, 0);
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
    assert_without_gap(&stage);
    program.signal("TERM");
    let said = stderr(&program.end().await);
    assert!(said.contains("the data directory cannot be used"), "{said}");
    assert!(said.contains("the queue on disk works again"), "{said}");
}
