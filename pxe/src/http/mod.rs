//! HTTP boot: RFC 9110 and 9112, GET and HEAD of named files, with ranges.
