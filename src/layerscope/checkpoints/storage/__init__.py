"""What the formats share below their tables: zip archives, strides, protobuf, names of files, errors."""
