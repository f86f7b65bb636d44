//! Files that are not as they were left.

use super::*;

/// A backlog on disk of which each scrape is a record, and what was finished of it.
async fn backlog(stage: &Stage) -> Vec<u64> {
    let program = stage.start();
    stage.scrapes(12).await;
    program.signal("TERM");
    let asked = Instant::now();
    program.end().await;
    let finished = stage.finished(0, asked);
    assert!(finished.len() >= 4, "{finished:?}");
    finished
}

/// What comes of it once the receiver is up.
async fn delivered(stage: &Stage) -> Vec<u64> {
    let _program = stage.start();
    stage.receiver_is(true);
    stage.scrapes(2).await;
    stage.takes(stage.answers()).await;
    let came = stage.taken();
    // Nothing was delivered before, so nothing comes twice.
    assert!(came.windows(2).all(|two| two[0] < two[1]), "{came:?}");
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_costs_one_scrape_and_its_file_is_set_aside() {
    let stage = Stage::new().await;
    backlog(&stage).await;
    // The last one may have been cut off by the signal.
    let written: Vec<_> = (1..stage.answers() as u64).collect();
    let [segment] = &stage.files("log")[..] else { panic!("one segment") };
    let mut bytes = std::fs::read(segment).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 8;
    std::fs::write(segment, bytes).expect("written");

    let came = delivered(&stage).await;
    let lost = lost(&written, &stage.receiver.recorded());
    assert_eq!(lost.len(), 1, "{lost:?} are lost, {came:?} came");
    eventually("it is set aside", async || (stage.files("corrupt").len() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_costs_what_was_torn() {
    let stage = Stage::new().await;
    let finished = backlog(&stage).await;
    let [segment] = &stage.files("log")[..] else { panic!("one segment") };
    let file = std::fs::OpenOptions::new().write(true).open(segment).expect("a segment");
    file.set_len(file.metadata().expect("its length").len() - 10).expect("cut off");
    drop(file);

    delivered(&stage).await;
    let lost = lost(&finished, &stage.receiver.recorded());
    assert!(lost.iter().all(|number| Some(number) == finished.last()), "{lost:?} of {finished:?}");
    assert_eq!(stage.files("corrupt").len(), 0, "that is no damage");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_all_files_keeps_nobody_from_starting() {
    let stage = Stage::new().await;
    backlog(&stage).await;
    let directory = stage.files("log")[0].parent().expect("a directory").to_owned();
    for file in std::fs::read_dir(&directory).expect("a directory") {
        std::fs::write(file.expect("readable").path(), vec![0xa5; 100_000]).expect("written");
    }
    std::os::unix::fs::symlink("/etc/passwd", directory.join(format!("{:016x}.log", 7))).expect("a link");
    let before = stage.answers() as u64;
    let came = delivered(&stage).await;
    assert!(came[0] > before, "{came:?}");
}
