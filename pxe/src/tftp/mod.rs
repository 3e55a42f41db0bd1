//! TFTP, read-only and from memory: RFC 1350, 1123 section 4.2, 2347, 2348, 2349 and 7440.
