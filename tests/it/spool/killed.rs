//! `kill -9`.

use super::*;

/// Kills the program again and again; which numbers were finished each time, and when it was killed.
async fn kill_often(stage: &Stage, kills: usize) -> (Vec<u64>, Vec<Instant>) {
    let (mut finished, mut moments) = (Vec::new(), Vec::new());
    for kill in 0..kills {
        let before = stage.answers();
        let program = stage.start();
        stage.scrapes(10).await;
        // At another place between two scrapes each time.
        let interval = stage.interval.as_millis() as u64;
        tokio::time::sleep(Duration::from_millis(37 * kill as u64 % interval)).await;
        program.signal("KILL");
        let killed = Instant::now();
        program.end().await;
        moments.push(killed);
        finished.extend(stage.finished(before, killed));
    }
    assert!(finished.len() >= 2 * kills, "{finished:?}");
    (finished, moments)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_finished_scrape_outlives_kills_while_the_receiver_is_down() {
    let stage = Stage::new().await;
    let (finished, _) = kill_often(&stage, scale(5, 100)).await;
    assert_eq!(stage.taken(), [0; 0]);
    let _last = stage.start();
    stage.receiver_is(true);
    stage.scrapes(2).await;
    stage.takes(stage.answers()).await;
    let came = stage.taken();
    assert_all_in_order(&stage.receiver.recorded(), &finished);
    assert_eq!(first_times(&came), came, "nothing was acknowledged before, so nothing comes twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_finished_scrape_outlives_kills_while_the_receiver_takes_them() {
    let stage = Stage::new().await;
    stage.receiver_is(true);
    let (finished, kills) = kill_often(&stage, scale(5, 100)).await;
    let _last = stage.start();
    stage.scrapes(2).await;
    stage.takes(stage.answers()).await;
    assert_all_in_order(&stage.receiver.recorded(), &finished);
    // Twice comes only what was under way when it was killed, or was acknowledged so shortly before that nobody had
    // written that down: a tenth of a second, and the time that a busy machine takes for it.
    let unwritten = finished_after() + Duration::from_millis(100);
    let mut first = std::collections::BTreeMap::new();
    let mut twice = Vec::new();
    for request in stage.receiver.recorded() {
        for number in taken(std::slice::from_ref(&request)) {
            match first.get(&number) {
                None => drop(first.insert(number, request.at)),
                Some(at) => twice.push((number, *at)),
            }
        }
    }
    let explained = |at: Instant| kills.iter().any(|killed| at + unwritten >= *killed && at <= *killed + unwritten);
    let unexplained: Vec<_> = twice.iter().filter(|(_, at)| !explained(*at)).collect();
    assert!(unexplained.is_empty(), "{unexplained:?} come again; the kills: {kills:?}");
    println!("{} of {} come twice", twice.len(), first.len());
}
