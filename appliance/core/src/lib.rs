//! The decision core of Rackmedic.
