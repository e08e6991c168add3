//! Models of the walchan protocol; see README.md.
