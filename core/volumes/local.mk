core_libcowgate_la_SOURCES += \
	core/volumes/begin.c \
	core/volumes/chain.c core/volumes/chain.h \
	core/volumes/change.c core/volumes/change.h \
	core/volumes/change_request.c core/volumes/change_request.h \
	core/volumes/close.c \
	core/volumes/control.c core/volumes/control.h \
	core/volumes/control_text.c core/volumes/control_text.h \
	core/volumes/fill.c core/volumes/fill.h \
	core/volumes/filling.c core/volumes/filling.h \
	core/volumes/flatten.c core/volumes/flatten.h \
	core/volumes/gather.c core/volumes/gather.h \
	core/volumes/index.c core/volumes/index.h \
	core/volumes/holders.c core/volumes/holders.h \
	core/volumes/layer.c core/volumes/layer.h \
	core/volumes/layers.c core/volumes/layers.h \
	core/volumes/list.c core/volumes/list.h \
	core/volumes/make.c core/volumes/make.h \
	core/volumes/map.c core/volumes/map.h \
	core/volumes/map_inside.h core/volumes/map_work.c \
	core/volumes/map_file.c core/volumes/map_file.h \
	core/volumes/marks.c core/volumes/marks.h \
	core/volumes/merge.c core/volumes/merge.h \
	core/volumes/merge_copy.c core/volumes/merge_copy.h \
	core/volumes/moment.c core/volumes/moment.h \
	core/volumes/moment_record.c core/volumes/moment_record.h \
	core/volumes/open.c \
	core/volumes/parent.c core/volumes/parent.h \
	core/volumes/pool_dir.c core/volumes/pool_dir.h \
	core/volumes/rewrite.c core/volumes/rewrite.h \
	core/volumes/seal.c core/volumes/seal.h \
	core/volumes/shared.c \
	core/volumes/space.h \
	core/volumes/tidy.c core/volumes/tidy.h \
	core/volumes/usage.c core/volumes/usage.h \
	core/volumes/volume.h core/volumes/volume_image.c \
	core/volumes/volume_json.c core/volumes/volume_json.h \
	core/volumes/volumes.c core/volumes/volumes.h \
	core/volumes/work_map.c core/volumes/work_map.h \
	core/volumes/writer.c core/volumes/writer.h \
	core/volumes/writer_record.c core/volumes/writer_record.h
