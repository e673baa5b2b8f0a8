from django.db import migrations

AUDIT = """
CREATE FUNCTION finetune_audit_keeps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR to_jsonb(NEW) - 'user_id' - 'collection_id'
                           IS DISTINCT FROM to_jsonb(OLD) - 'user_id' - 'collection_id' THEN
        RAISE EXCEPTION 'The audit log is append only.' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER audit_keeps BEFORE UPDATE OR DELETE ON finetune_auditevent
    FOR EACH ROW EXECUTE FUNCTION finetune_audit_keeps();
"""
# What is frozen may go only as a whole: at commit the snapshot of a deleted row must be gone too.
SNAPSHOT = """
CREATE FUNCTION finetune_snapshot_row_keeps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       OR EXISTS (SELECT FROM finetune_datasetsnapshot WHERE id = OLD.snapshot_id) THEN
        RAISE EXCEPTION 'A frozen snapshot never changes.' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER snapshot_row_keeps AFTER UPDATE ON finetune_snapshotrow
    FOR EACH ROW EXECUTE FUNCTION finetune_snapshot_row_keeps();
CREATE CONSTRAINT TRIGGER snapshot_row_stays AFTER DELETE ON finetune_snapshotrow
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION finetune_snapshot_row_keeps();
CREATE FUNCTION finetune_snapshot_keeps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'ready' AND to_jsonb(NEW) - 'created_by_id' - 'has_lost_sources'
                               IS DISTINCT FROM to_jsonb(OLD) - 'created_by_id' - 'has_lost_sources' THEN
        RAISE EXCEPTION 'A frozen snapshot never changes.' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER snapshot_keeps BEFORE UPDATE ON finetune_datasetsnapshot
    FOR EACH ROW EXECUTE FUNCTION finetune_snapshot_keeps();
"""
UNDO = """
DROP TRIGGER audit_keeps ON finetune_auditevent;
DROP TRIGGER snapshot_row_keeps ON finetune_snapshotrow;
DROP TRIGGER snapshot_row_stays ON finetune_snapshotrow;
DROP TRIGGER snapshot_keeps ON finetune_datasetsnapshot;
DROP FUNCTION finetune_audit_keeps, finetune_snapshot_row_keeps, finetune_snapshot_keeps;
"""


class Migration(migrations.Migration):
    dependencies = [("finetune", "0001_initial")]
    operations = [migrations.RunSQL(AUDIT + SNAPSHOT, UNDO)]
