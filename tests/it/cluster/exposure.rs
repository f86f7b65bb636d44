//! `meshscrape audit` and `meshscrape verify` on a real API server, with a real Envoy in the place of every kind of pod.

mod audit;
mod town;
mod verify;
