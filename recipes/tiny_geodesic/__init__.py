"""How `tiny-geodesic` is made on a GPU: pack the volumes, train, store; see README.md."""
