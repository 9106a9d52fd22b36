//! Mock endpoint services that tell who was called and which of them are still held by a balancer.
#![allow(dead_code, unreachable_pub)]

#[cfg(feature = "http")]
pub mod server;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower::Service;

/// The services that exist, by serial number, with the key and value they were made for.
#[derive(Clone, Default)]
pub struct Alive(Arc<Mutex<BTreeMap<u64, (u32, u32)>>>);

impl Alive {
    /// A service that answers with its key and value.
    pub fn service(&self, key: u32, value: u32) -> Tracked {
        let mut alive = self.0.lock().unwrap();
        let serial = alive.last_key_value().map_or(0, |(last, _)| last + 1);
        alive.insert(serial, (key, value));
        Tracked { alive: self.clone(), serial, answer: (key, value) }
    }

    pub fn set(&self) -> Vec<(u32, u32)> {
        let mut set: Vec<_> = self.0.lock().unwrap().values().copied().collect();
        set.sort_unstable();
        set
    }
}

pub struct Tracked {
    alive: Alive,
    serial: u64,
    answer: (u32, u32),
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.alive.0.lock().unwrap().remove(&self.serial);
    }
}

impl<Req> Service<Req> for Tracked {
    type Response = (u32, u32);
    type Error = Infallible;
    type Future = std::future::Ready<Result<(u32, u32), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        std::future::ready(Ok(self.answer))
    }
}

/// Takes this long for an answer, which is its number.
#[derive(Clone, Copy)]
pub struct Slow(pub u32, pub Duration);

impl<Req> Service<Req> for Slow {
    type Response = u32;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<u32, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        let Self(number, delay) = *self;
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            Ok(number)
        })
    }
}

/// Places that are taken in `poll_ready` and given back when the response is there, or the service or
/// the response is dropped, as tower's concurrency limit does.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<(usize, Vec<Waker>)>>);

impl Places {
    pub fn new(free: usize) -> Self {
        Self(Arc::new(Mutex::new((free, Vec::new()))))
    }

    pub fn free(&self) -> usize {
        self.0.lock().unwrap().0
    }

    pub fn add(&self) {
        let mut places = self.0.lock().unwrap();
        places.0 += 1;
        let wakers = std::mem::take(&mut places.1);
        drop(places);
        wakers.into_iter().for_each(Waker::wake);
    }
}

struct Place(Places);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.add();
    }
}

pub struct Limited {
    places: Places,
    place: Option<Place>,
}

impl Limited {
    pub fn new(places: Places) -> Self {
        Self { places, place: None }
    }
}

impl Service<Duration> for Limited {
    type Response = ();
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.place.is_none() {
            let mut places = self.places.0.lock().unwrap();
            if places.0 == 0 {
                places.1.push(cx.waker().clone());
                return Poll::Pending;
            }
            places.0 -= 1;
            drop(places);
            self.place = Some(Place(self.places.clone()));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delay: Duration) -> Self::Future {
        let place = self.place.take().expect("called before it was ready");
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            drop(place);
            Ok(())
        })
    }
}
