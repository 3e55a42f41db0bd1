//! One host with its BMC.
