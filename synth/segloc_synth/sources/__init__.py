"""In: paths of scans and labels of any layout. Out: checked records, pictures as RGB, and all that is wrong."""
