"""An index of photos' codes: built from a folder, searched by words or by a photo."""
