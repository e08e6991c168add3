//! Leases of any value.

use std::ops::Deref;
use walchan_core::storage::lease;

#[derive(Debug)]
pub struct Lessor<T>(lease::Lessor<T>);

#[derive(Debug)]
pub struct Lease<T>(lease::Lease<T>);

impl<T> Lessor<T> {
    pub fn new(value: T) -> Self {
        Lessor(lease::Lessor::new(value))
    }

    pub fn lease(&self) -> Lease<T> {
        Lease(self.0.lease())
    }

    pub fn end(self) -> Result<T, lease::Stays> {
        self.0.end()
    }
}

impl<T> Deref for Lessor<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
